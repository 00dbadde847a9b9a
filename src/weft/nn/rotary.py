"""Rotary position tables (Su et al. 2021, arXiv:2104.09864).

R is half the rotated width of a head: one angle turns a pair of numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from weft.spec import RotaryScaling, RotarySpec


def inverse_frequencies(spec: RotarySpec, rotary_dim: int) -> Tensor:
    """Return the angle per position of each pair, shape [R], float32.

    ``theta ** (-2 i / rotary_dim)``, stretched by ``spec.scaling`` if it is given.
    """
    exponents_R = torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim
    frequencies_R = 1.0 / (spec.theta**exponents_R)
    return frequencies_R if spec.scaling is None else _scale(frequencies_R, spec.scaling)


def rotary_tables(spec: RotarySpec, rotary_dim: int, positions_T: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of every position's angles, each [T, R], float32."""
    frequencies_R = inverse_frequencies(spec, rotary_dim).to(positions_T.device)
    angles_TR = torch.outer(positions_T.to(torch.float32), frequencies_R)
    return angles_TR.cos(), angles_TR.sin()


def _scale(frequencies_R: Tensor, scaling: RotaryScaling) -> Tensor:
    if scaling.kind == "linear":  # position interpolation, arXiv:2306.15595
        return frequencies_R / scaling.factor
    # Llama 3: keep short wavelengths, divide long ones, blend between (Llama 3.1 model card).
    wavelengths_R = 2 * math.pi / frequencies_R
    blend_R = (scaling.original_context / wavelengths_R - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blend_R = blend_R.clamp(0.0, 1.0)
    return frequencies_R * (blend_R + (1.0 - blend_R) / scaling.factor)
