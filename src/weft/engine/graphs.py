"""``GraphLadder``: decode steps replayed from recordings, so that a GPU need not wait for Python.

A recording is made of one shape, so there is one per number of rows of a ladder; a step takes the
smallest that holds it and fills up with rows that compute token 0 in a block nobody owns. Inputs
lie in buffers that are written before each replay, the output in one that is read behind it.
Prefill, mixed steps, guesses and steps beyond the ladder run eagerly, as does everything for models
whose layers ask for numbers of the step in Python.

How a recording is made is an argument. ``CudaCapture`` is for GPUs; ``rerun`` calls the function
again and is there to show, on any machine, that a replay over static buffers gives what an eager
step gives.

Shapes: R rows of a recording, S positions of the longest context, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weft.engine.batch import StepBatch
from weft.nn.context import PagedBatch, StepContext
from weft.nn.kv_cache import KVCache
from weft.ops import PagedLayout, ScoreRule
from weft.spec import AttentionSpec, MLPSpec, ModelSpec

LADDER = (1, 2, 4, 8, *range(16, 513, 16))

# Returns where each call's output is found, and what computes it again from the same inputs.
Capture = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]
Forward = Callable[[Tensor, StepContext], Tensor]


def bucket_for(num_rows: int, ladder: Sequence[int] = LADDER) -> int | None:
    """Return the smallest recording that holds so many rows; none beyond the ladder.

    >>> bucket_for(9), bucket_for(512), bucket_for(513)
    (16, 512, None)
    """
    return next((size for size in ladder if size >= num_rows), None)


def can_record(spec: ModelSpec) -> bool:
    """Return whether a decode step of a model does the same operations whatever is in it."""
    plain = all(isinstance(layer.mixer, AttentionSpec) for layer in spec.layers)
    dense = all(layer.ffn is None or isinstance(layer.ffn, MLPSpec) for layer in spec.layers)
    return plain and dense and not spec.has_states


@dataclass(frozen=True, kw_only=True)
class StaticLayout(PagedLayout):
    """The layout of a decode step whose numbers are in buffers; nothing is kept between calls.

    Attributes:
        lasts_B: Position of each sequence's token.
    """

    lasts_B: Tensor

    @property
    def positions_T(self) -> Tensor:
        """The position each token has in its sequence, int64."""
        return self.lasts_B

    @property
    def distances_BS(self) -> Tensor:
        """Each cached position minus that of the sequence's last token, int64."""
        width = self.slots_BS.shape[1]
        return torch.arange(width, device=self.slots_BS.device) - self.lasts_B.unsqueeze(1)

    def visible_BS(self, window: int | None, num_first: int = 0) -> Tensor:
        """Return which cached positions the token of each sequence sees, bool."""
        return ScoreRule(1.0, window, num_first=num_first).visible(self.distances_BS)


class StaticInputs:
    """The buffers that recordings of all sizes read.

    Args:
        num_rows: Of the largest recording.
        max_context: Most positions of a sequence.
        spare_slot: A cache slot nobody reads.
    """

    def __init__(
        self, num_rows: int, max_context: int, spare_slot: int, device: torch.device
    ) -> None:
        self.spare_slot = spare_slot
        self.tokens_R = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.positions_R = torch.zeros_like(self.tokens_R)
        self.slots_R = torch.full_like(self.tokens_R, spare_slot)
        self.slots_RS = self.slots_R.unsqueeze(1).repeat(1, max_context)
        self._num_used = 0

    def batch(self, num_rows: int) -> PagedBatch:
        """Return the first rows as a step."""
        ones, width = (1,) * num_rows, self.slots_RS.shape[1]
        positions_R, slots_RS = self.positions_R[:num_rows], self.slots_RS[:num_rows]
        layout = StaticLayout(ones, (width,) * num_rows, slots_RS, decode=True, lasts_B=positions_R)
        return PagedBatch(positions_R, self.slots_R[:num_rows], layout)

    def fill(self, step: StepBatch) -> None:
        """Write a step of single tokens, and padding over what the last one left."""
        slots_BS = step.paged.layout.slots_BS
        num_rows, width = slots_BS.shape
        self._pad(num_rows)
        self.tokens_R[:num_rows] = step.tokens_T
        self.positions_R[:num_rows] = step.paged.positions_T
        self.slots_R[:num_rows] = step.paged.slots_T
        # What is read beyond a sequence's end has weight zero, but NaN of others would survive.
        self.slots_RS[:num_rows] = slots_BS[:, :1]
        self.slots_RS[:num_rows, :width] = slots_BS
        self._num_used = num_rows

    def _pad(self, num_rows: int) -> None:
        """Make padding of the rows behind ``num_rows`` that the last step has used."""
        stale = slice(num_rows, max(num_rows, self._num_used))
        self.tokens_R[stale] = 0
        self.positions_R[stale] = 0
        self.slots_R[stale] = self.spare_slot
        self.slots_RS[stale] = self.spare_slot


class GraphLadder:
    """Recordings of decode steps, largest first, so that the smaller ones fit into its memory.

    Args:
        forward: The module.
        cache: With one block more than the scheduler gives out: padding writes there.
        max_context: Most positions of a sequence.
        max_rows: Most sequences of a step.
        capture: How a recording is made.
        ladder: Numbers of rows, ascending.
    """

    def __init__(
        self,
        forward: Forward,
        cache: KVCache,
        *,
        max_context: int,
        max_rows: int,
        device: torch.device,
        capture: Capture,
        ladder: Sequence[int] = LADDER,
    ) -> None:
        largest = bucket_for(max_rows, ladder) or ladder[-1]
        self.ladder = tuple(size for size in ladder if size <= largest)
        spare_slot = cache.num_blocks * cache.block_size - 1
        self._inputs = StaticInputs(largest, max_context, spare_slot, device)
        self._recordings: Mapping[int, tuple[Tensor, Callable[[], None]]] = {
            size: capture(self._step(forward, cache, size)) for size in reversed(self.ladder)
        }

    def run(self, step: StepBatch) -> Tensor | None:
        """Return the hidden states of a step, [T, D], until the next run; none if it is not one."""
        size = bucket_for(len(step.tokens_T), self.ladder)
        if size is None or not step.paged.layout.decode:
            return None
        self._inputs.fill(step)
        output_RD, replay = self._recordings[size]
        replay()
        return output_RD[: len(step.tokens_T)]

    def _step(self, forward: Forward, cache: KVCache, size: int) -> Callable[[], Tensor]:
        tokens_R, batch = self._inputs.tokens_R[:size], self._inputs.batch(size)
        return lambda: forward(tokens_R, StepContext.paged(cache, batch))


def rerun(function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Record nothing: a replay calls the function again. For tests; it saves no time."""
    output = function().clone()

    def replay() -> None:
        output.copy_(function())

    return output, replay


class CudaCapture:
    """Records CUDA graphs into one memory pool; a replay is a single launch.

    Recordings share memory, so the output of one is gone once another is replayed.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Run a function once to settle lazy choices, then record it."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = function()
        self._pool = graph.pool()
        return output, graph.replay
