"""Drafting a whole block in one pass with a ``BlockHead``.

T rows of one pass, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from weft.engine.batch import build_batch
from weft.engine.speculation.config import Acceptance
from weft.engine.speculation.networks import module_cache
from weft.engine.speculation.trailing import TrailingProposer
from weft.engine.speculation.trails import known_item
from weft.engine.step_view import StepView
from weft.models import heads
from weft.models.block_draft import BlockHead
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.sched.plan import Draft


class BlockProposer(TrailingProposer):
    """Fills the places behind the last token of each sequence.

    Args:
        head: Trained with the model.
        model: The target.
        num_blocks: Blocks of the target's cache.
        block_size: Positions per block.
        max_num_sequences: Most sequences of one step.
        max_draft: Guesses per sequence and step.
        num_scratch_blocks: Blocks of each sequence for guesses; see ``SpeculationConfig``.
        acceptance: How guesses will be judged.
    """

    def __init__(
        self,
        head: BlockHead,
        model: Decoder,
        *,
        num_blocks: int,
        block_size: int,
        max_num_sequences: int,
        max_draft: int,
        num_scratch_blocks: int,
        acceptance: Acceptance,
    ) -> None:
        self.head = head
        self.model = model
        self._max_draft = max_draft
        self._num_blocks = num_blocks
        self._num_scratch_blocks = num_scratch_blocks
        num_scratch = max_num_sequences * self._num_scratch_blocks
        layers = head.spec.layers
        cache = module_cache(model, layers, 0, num_blocks + num_scratch, block_size)
        super().__init__(cache, acceptance, keeps_hidden=True)

    def propose(self, view: StepView) -> dict[int, Draft]:
        """Compute what is waiting, and with it a block for every sequence that has drawn."""
        limit = self.model.spec.context_length - self._max_draft
        last = {}
        for item in view.items:
            drawn = view.drawn(item.id)
            if item.id in self._drawer and drawn and self._trails[item.id].end < limit:
                last[item.id] = drawn[-1]
        self._drawer.begin(list(last))
        ends = np.array([self._trails[id].end for id in last])
        hidden_RMD = self._catch_up([item.id for item in view.items], last)
        if not last:
            return {}
        guesses = [torch.tensor(list(last.values()), device=self.model.device)]
        for place in range(self._max_draft):
            logits_RV = heads.logits(self.model, hidden_RMD[:, place])
            logits_RV = logits_RV + self.head.bias(guesses[-1])
            drawn = self._drawer.draw(list(last), ends + 1 + place, logits_RV)
            guesses.append(torch.tensor(drawn, device=self.model.device))
        rows = torch.stack(guesses[1:], dim=1).tolist()
        return {id: Draft(tuple(row)) for id, row in zip(last, rows, strict=True)}

    def _catch_up(self, ids: Sequence[int], last: Mapping[int, int]) -> Tensor:
        """Compute trails and blocks; return the rows of the blocks, [sequences, places, D]."""
        items, rows, ends, num_rows = [], [], [], 0
        for id in ids:
            trail = self._trails[id]
            block = (last[id], *(0 for _ in range(self._max_draft - 1))) if id in last else ()
            tokens = (*trail.tokens, *block)
            if not tokens:
                continue
            rows.append(self.head.inject(trail.hidden_TD()))
            num_rows += len(tokens)
            if id in last:
                rows += self._block_rows(last[id], trail.end)
                ends.append(num_rows)
            items.append(known_item(id, trail, tokens, self._scratch(len(ends))))
            trail.keep_last(0)
        batch = build_batch(items, self._cache.block_size, self.model.device)
        hidden_TD = self.head(torch.cat(rows), StepContext.paged(self._cache, batch.paged))
        places = [range(end - self._max_draft, end) for end in ends]
        return hidden_TD[torch.tensor([*places], dtype=torch.int64)]

    def _block_rows(self, token: int, position: int) -> list[Tensor]:
        where = {"device": self.model.device}
        ctx = StepContext.packed([1], **where)
        ctx.positions_T = torch.tensor([position], **where)
        embedded_1D = self.model.embed_tokens(torch.tensor([token], **where), ctx)
        return [embedded_1D, self.head.mask.expand(self._max_draft - 1, -1)]

    def _scratch(self, row: int) -> tuple[int, ...]:
        """Return blocks of its own for the ``row``-th block, counted from 1."""
        first = self._num_blocks + (row - 1) * self._num_scratch_blocks
        return tuple(range(first, first + self._num_scratch_blocks)) if row else ()
