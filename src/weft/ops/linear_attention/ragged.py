"""Single tokens take one batched step, longer runs go by chunks; a batch may hold both.

T tokens, B sequences, S sequences of one token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Tensors whose first axis is T, or none where an op was given no such input.
Inputs = Sequence[Any]
Result = tuple[Tensor, Tensor]


def dispatch(
    inputs_T: Inputs,
    lengths: tuple[int, ...],
    initial_B: Tensor | None,
    *,
    step: Callable[[Inputs, Tensor | None], Result],
    chunkwise: Callable[[Inputs, tuple[int, ...], Tensor | None], Result],
) -> Result:
    """Return outputs, [T, ...], and final states, [B, ...], of a mixed batch."""
    if max(lengths) == 1:
        return step(inputs_T, initial_B)
    if 1 not in lengths:
        return chunkwise(inputs_T, lengths, initial_B)
    is_single_B = torch.tensor(lengths) == 1
    is_single_T = is_single_B.repeat_interleave(torch.tensor(lengths))
    device = next(x.device for x in inputs_T if x is not None)
    single_B, long_B, single_T, long_T = (
        mask.nonzero().squeeze(1).to(device)
        for mask in (is_single_B, ~is_single_B, is_single_T, ~is_single_T)
    )
    short = step(_rows(inputs_T, single_T), _row(initial_B, single_B))
    long_lengths = tuple(length for length in lengths if length != 1)
    long = chunkwise(_rows(inputs_T, long_T), long_lengths, _row(initial_B, long_B))
    outputs_T = torch.cat([short[0], long[0]])[torch.cat([single_T, long_T]).argsort()]
    final_B = torch.cat([short[1], long[1]])[torch.cat([single_B, long_B]).argsort()]
    return outputs_T, final_B


def _rows(inputs_T: Inputs, rows: Tensor) -> Inputs:
    return [_row(x_T, rows) for x_T in inputs_T]


def _row(x: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if x is None else x.index_select(0, rows)
