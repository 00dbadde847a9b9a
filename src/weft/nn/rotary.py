"""Rotary position tables (Su et al. 2021, arXiv:2104.09864).

R is half the rotated width of a head: one angle turns a pair of numbers. T tokens, A axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.nn.rotary_scaling import scaled_frequencies
from weft.spec import RotarySpec


def inverse_frequencies(spec: RotarySpec, rotary_dim: int) -> Tensor:
    """Return the angle per position of each pair, shape [R], float32.

    ``theta ** (-2 i / rotary_dim)``, stretched by ``spec.scaling`` if it is given.
    """
    if spec.scaling is not None:
        return scaled_frequencies(spec.theta, rotary_dim, spec.scaling)
    exponents_R = torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim
    return 1.0 / (spec.theta**exponents_R)


def rotary_tables(spec: RotarySpec, rotary_dim: int, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of every position's angles, each [T, R], float32.

    ``positions`` are [T], or [A, T] where a token has one on each axis (M-RoPE,
    arXiv:2409.12191): then every pair follows the axis that ``spec.sections`` gives it.
    """
    frequencies_R = inverse_frequencies(spec, rotary_dim).to(positions.device)
    if positions.dim() == 1:
        angles_TR = torch.outer(positions.to(torch.float32), frequencies_R)
    else:
        axes_R = torch.tensor(spec.axes(frequencies_R.shape[0]), device=positions.device)
        angles_TR = positions.to(torch.float32)[axes_R].t() * frequencies_R
    cos_TR, sin_TR = angles_TR.cos(), angles_TR.sin()
    factor = 1.0 if spec.scaling is None else spec.scaling.table_factor
    return (cos_TR, sin_TR) if factor == 1.0 else (cos_TR * factor, sin_TR * factor)
