"""WKV token by token. T tokens, B sequences, D channels.

A state is [3, D]: numerator, denominator and the exponent both are divided by. A denominator of
zero means that nothing was seen yet, whatever the exponent says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.linear_attention.reference import work_dtype

# The exponent of a state that has seen nothing: exp of it is zero beside anything.
EMPTY = -1e30


def wkv(
    decay_D: Tensor,
    bonus_D: Tensor,
    k_TD: Tensor,
    v_TD: Tensor,
    lengths: tuple[int, ...],
    initial_B3D: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the average of past values weighted by exp(k_j - (t - 1 - j) decay), and the states.

    The present token's weight is exp(bonus + k_t). Peng et al. 2023 (arXiv:2305.13048), equation
    16 and appendix D.
    """
    decay_D, bonus_D = decay_D.to(work_dtype(v_TD)), bonus_D.to(work_dtype(v_TD))
    outputs, finals = [], []
    start = 0
    for state_3D, length in zip(initial_states(initial_B3D, lengths, v_TD), lengths, strict=True):
        total_D, weight_D, top_D = state_3D
        for t in range(start, start + length):
            k_D, v_D = k_TD[t].to(decay_D.dtype), v_TD[t].to(decay_D.dtype)
            seen = combine((total_D, weight_D, top_D), (v_D, torch.ones_like(v_D), bonus_D + k_D))
            outputs.append(seen[0] / seen[1])
            total_D, weight_D, top_D = combine(
                (total_D, weight_D, top_D - decay_D), (v_D, torch.ones_like(v_D), k_D)
            )
        finals.append(torch.stack([total_D, weight_D, top_D]))
        start += length
    return torch.stack(outputs).to(v_TD.dtype), torch.stack(finals)


def initial_states(initial_B3D: Tensor | None, lengths: tuple[int, ...], v_TD: Tensor) -> Tensor:
    """Return the states sequences start with; empty ones get an exponent that says so."""
    work = work_dtype(v_TD)
    if initial_B3D is None:
        initial_B3D = v_TD.new_zeros(len(lengths), 3, v_TD.shape[1], dtype=work)
    total_BD, weight_BD, top_BD = initial_B3D.to(work).unbind(1)
    top_BD = top_BD.masked_fill(weight_BD == 0, EMPTY)
    return torch.stack([total_BD, weight_BD, top_BD], dim=1)


Sums = tuple[Tensor, Tensor, Tensor]
"""Numerator, denominator and the exponent that multiplies both."""


def combine(left: Sums, right: Sums) -> Sums:
    """Add two sums over the larger of their exponents."""
    # The exponent cancels in every result, so no gradient needs to pass through it.
    top = torch.maximum(left[2], right[2]).detach()
    scale_left, scale_right = (left[2] - top).exp(), (right[2] - top).exp()
    return (
        left[0] * scale_left + right[0] * scale_right,
        left[1] * scale_left + right[1] * scale_right,
        top,
    )
