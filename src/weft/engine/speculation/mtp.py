"""Drafting with multi-token prediction modules, one behind the other (DeepSeek-V3,
arXiv:2412.19437, section 2.2).

Module k joins what module k - 1 knows at position i with token i + k, so all modules stay at the
positions of tokens that are in the cache, and the last of them runs k tokens ahead on guesses. What
a module computed from guesses is computed again in the next step: the last K positions, for K
modules.

T tokens of one pass, D model width.
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
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.sched.plan import Draft, StepItem


class MTPProposer(TrailingProposer):
    """Guesses one token per prediction module.

    Args:
        model: With prediction modules.
        num_blocks: Blocks of the target's cache.
        block_size: Positions per block.
        max_draft: Most guesses; the number of modules is another limit.
        acceptance: How guesses will be judged.
    """

    def __init__(
        self,
        model: Decoder,
        *,
        num_blocks: int,
        block_size: int,
        max_draft: int,
        acceptance: Acceptance,
    ) -> None:
        self.model = model
        self._modules = list(model.mtp)[:max_draft]
        layers = (model.spec.layers[-1],) * len(self._modules)
        cache = module_cache(model, layers, model.spec.num_layers, num_blocks, block_size)
        super().__init__(cache, acceptance, keeps_hidden=True)

    def propose(self, view: StepView) -> dict[int, Draft]:
        """Compute what is waiting, and guess for every sequence that has drawn."""
        last = {
            id: view.drawn(id)[-1] for id in view.walks if id in self._drawer and view.drawn(id)
        }
        self._drawer.begin(list(last))
        guesses = self._catch_up([item.id for item in view.items], last)
        return {id: Draft(tuple(tokens)) for id, tokens in guesses.items()}

    def _catch_up(self, ids: Sequence[int], last: Mapping[int, int]) -> dict[int, list[int]]:
        """Run every module over the trails, each on the guesses of those before it.

        Returns:
            The guesses of the sequences in ``last``, which names the tokens they have drawn last.
        """
        trails = [self._trails[id] for id in ids]
        items = [
            known_item(id, trail, tuple(trail.tokens), ())
            for id, trail in zip(ids, trails, strict=True)
        ]
        batch = build_batch(items, self._cache.block_size, self.model.device)
        hidden_TD = torch.cat([trail.hidden_TD() for trail in trails])
        guesses: dict[int, list[int]] = {id: [] for id in ids if id in last}
        lasts_B = np.cumsum([len(item.tokens) for item in items]) - 1
        rows = [int(row) for row, id in zip(lasts_B, ids, strict=True) if id in last]
        ends_R = np.array([item.start + len(item.tokens) for item in items if item.id in last])
        for steps, module in enumerate(self._modules, start=1):
            known = [
                (*item.tokens, *((last[item.id], *guesses[item.id]) if item.id in last else ()))
                for item in items
            ]
            ctx = StepContext.paged(self._cache, batch.paged)
            ctx.tokens_T = tokens_T = _ahead(known, items, steps).to(self.model.device)
            hidden_TD = module(hidden_TD, self.model.embed_tokens(tokens_T, ctx), ctx)
            if rows:
                logits_RV = heads.logits(self.model, hidden_TD[rows])
                drawn = self._drawer.draw(list(guesses), ends_R + steps, logits_RV)
                for id, token in zip(guesses, drawn, strict=True):
                    guesses[id].append(token)
        for trail in trails:
            trail.keep_last(len(self._modules))
        return guesses


def _ahead(known: Sequence[tuple[int, ...]], items: Sequence[StepItem], steps: int) -> Tensor:
    """Return for each token the one so many places ahead; 0 where it is not known yet."""
    ahead: list[int] = []
    for tokens, item in zip(known, items, strict=True):
        piece = tokens[steps : steps + len(item.tokens)]
        ahead += (*piece, *(0 for _ in range(len(item.tokens) - len(piece))))
    return torch.tensor(ahead)
