"""``StepForward``: the items of a step to hidden states, in one forward pass or in several.

One pass is the rule. A step takes several where more adapters are in it than are in place at once,
and in deterministic mode for models with recurrent layers: their sums depend on what a token is
computed with, so each token gets a pass of its own, always of the same shape.

T tokens of the step, guesses included, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from weft.engine.adapters.step import StepAdapters
from weft.engine.batch import StepBatch, build_batch, pad_items
from weft.engine.graphs import Capture, GraphLadder
from weft.engine.states import StateSlots
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.kv_cache import KVCache
from weft.sched.plan import StepItem

# Items of one pass, or parts of them, with their places among those of the step.
Part = list[tuple[int, StepItem]]


class StepForward:
    """Calls the module.

    Args:
        model: Called as it is.
        cache: Written and read.
        states: Where recurrent states live; none where there are none.
        adapters: What the items may run with; none leaves the model as it is.
        deterministic: Give a token the same bits whatever it is computed with.
    """

    def __init__(
        self,
        model: Decoder,
        cache: KVCache,
        states: StateSlots | None,
        adapters: StepAdapters | None,
        *,
        deterministic: bool,
    ) -> None:
        self.model = model
        self.cache = cache
        self.graphs: GraphLadder | None = None
        self._states = states
        self._adapters = adapters
        self._deterministic = deterministic

    def record_graphs(self, capture: Capture, *, max_context: int, max_rows: int) -> None:
        """Record decode steps, and replay them from now on.

        The cache needs a block more than the scheduler gives out. Recordings read the module's and
        the cache's tensors where they lie now: record again when others take their place.
        """
        with torch.inference_mode():
            self.graphs = GraphLadder(
                self.model,
                self.cache,
                max_context=max_context,
                max_rows=max_rows,
                device=self.model.device,
                capture=capture,
            )

    def run(self, items: Sequence[StepItem]) -> tuple[StepBatch, Tensor]:
        """Return the step as tensors and the hidden states of its tokens, [T, D] or longer."""
        parts = self._parts(items)
        if len(parts) == 1:
            return self._pass(items)
        found: list[list[Tensor]] = [[] for _ in items]
        for part in parts:
            pieces = [item for _, item in part]
            sizes = [item.num_tokens for item in pieces]
            hidden_TD = self._pass(pieces)[1][: sum(sizes)].clone()
            for (place, _), piece_TD in zip(part, hidden_TD.split(sizes), strict=True):
                found[place].append(piece_TD)
        batch = build_batch(items, self.cache.block_size, self.model.device)
        return batch, torch.cat([piece_TD for pieces in found for piece_TD in pieces])

    def _parts(self, items: Sequence[StepItem]) -> list[Part]:
        if self._deterministic and self._states is not None:
            return [[(place, token)] for place, item in enumerate(items) for token in _cut(item)]
        if self._adapters is None:
            return [list(enumerate(items))]
        passes = self._adapters.passes(items)
        return [[(place, items[place]) for place in places] for places in passes]

    def _pass(self, items: Sequence[StepItem]) -> tuple[StepBatch, Tensor]:
        padded = pad_items(items) if self._deterministic else items
        slots = self._state_slots(items, num_copies=len(padded) - len(items))
        batch = build_batch(
            padded, self.cache.block_size, self.model.device, slots, apart=self._deterministic
        )
        if self._adapters is not None and self._adapters.any_in(items):
            with self._adapters.active(padded):
                return batch, self._compute(batch)
        hidden_TD = None if self.graphs is None else self.graphs.run(batch)
        return batch, self._compute(batch) if hidden_TD is None else hidden_TD

    def _compute(self, batch: StepBatch) -> Tensor:
        return self.model(batch.tokens_T, StepContext.paged(self.cache, batch.paged))

    def _state_slots(self, items: Sequence[StepItem], *, num_copies: int) -> list[int] | None:
        if self._states is None:
            return None
        slots = self._states.take(item.id for item in items)
        if num_copies:
            assert len(items) == 1, "copies are of the only item, whose state they share"
            self._states.shadow(self.cache, items[0].id)
        return slots + [self._states.scratch] * num_copies


def _cut(item: StepItem) -> list[StepItem]:
    """Return an item's tokens one by one."""
    return [
        item._replace(tokens=(token,), start=item.start + offset)
        for offset, token in enumerate(item.tokens)
    ]
