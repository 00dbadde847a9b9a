"""Rotary frequencies for longer contexts than the trained one. R pairs.

One function per rule; all return [R], float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from weft.core.errors import ConfigError
from weft.spec import RotaryScaling


def scaled_frequencies(theta: float, rotary_dim: int, scaling: RotaryScaling) -> Tensor:
    """Return the stretched angle per position of each pair, [R], float32."""
    return RULES[scaling.kind](theta, rotary_dim, scaling)


def _wavelength_divisors(theta: float, rotary_dim: int) -> Tensor:
    """Return ``theta ** (2 i / rotary_dim)``: positions per radian of each pair."""
    return theta ** (torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim)


def _linear(theta: float, rotary_dim: int, scaling: RotaryScaling) -> Tensor:
    """Position interpolation (Chen et al. 2023, arXiv:2306.15595)."""
    return 1.0 / _wavelength_divisors(theta, rotary_dim) / scaling.factor


def _ntk(theta: float, rotary_dim: int, scaling: RotaryScaling) -> Tensor:
    """Raise the base so that the slowest pair alone is divided by the factor (NTK-aware)."""
    return _raised_base(theta, rotary_dim, scaling.factor)


def _dynamic(theta: float, rotary_dim: int, scaling: RotaryScaling) -> Tensor:
    """NTK-aware with the stretch that ``scaling.context`` needs; none up to the trained length."""
    stretch = 1.0
    if scaling.is_stretched:
        assert scaling.context is not None
        length = scaling.factor * scaling.context / scaling.original_context
        stretch = length - (scaling.factor - 1.0)
    return _raised_base(theta, rotary_dim, stretch)


def _raised_base(theta: float, rotary_dim: int, stretch: float) -> Tensor:
    base = theta * stretch ** (rotary_dim / (rotary_dim - 2))
    return 1.0 / _wavelength_divisors(base, rotary_dim)


def _yarn(theta: float, rotary_dim: int, scaling: RotaryScaling) -> Tensor:
    """Keep fast pairs, divide slow ones, blend between (Peng et al. 2023, arXiv:2309.00071)."""

    def pair_that_turns(rotations: float) -> float:
        wavelength = scaling.original_context / (rotations * 2.0 * math.pi)
        return rotary_dim * math.log(wavelength) / (2.0 * math.log(theta))

    first, last = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rotary_dim - 1)
    width = last - first or 0.001  # a blend of no width is a step
    pairs_R = torch.arange(rotary_dim // 2, dtype=torch.float32)
    divided_R = ((pairs_R - first) / width).clamp(0.0, 1.0)
    divisors_R = _wavelength_divisors(theta, rotary_dim)
    return divided_R / (scaling.factor * divisors_R) + (1.0 - divided_R) / divisors_R


def _llama3(theta: float, rotary_dim: int, scaling: RotaryScaling) -> Tensor:
    """Keep short wavelengths, divide long ones, blend between (Llama 3.1 model card)."""
    frequencies_R = 1.0 / _wavelength_divisors(theta, rotary_dim)
    wavelengths_R = 2 * math.pi / frequencies_R
    blend_R = (scaling.original_context / wavelengths_R - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blend_R = blend_R.clamp(0.0, 1.0)
    return frequencies_R * (blend_R + (1.0 - blend_R) / scaling.factor)


def _longrope(theta: float, rotary_dim: int, scaling: RotaryScaling) -> Tensor:
    """Divide each pair by its own searched factor (Ding et al. 2024, arXiv:2402.13753)."""
    factors = scaling.long_factors if scaling.is_stretched else scaling.short_factors
    if len(factors) != rotary_dim // 2:
        raise ConfigError(
            f"longrope has {len(factors)} factors; a head that rotates {rotary_dim} dimensions "
            f"needs {rotary_dim // 2}"
        )
    return 1.0 / (torch.tensor(factors) * _wavelength_divisors(theta, rotary_dim))


RULES: dict[str, Callable[[float, int, RotaryScaling], Tensor]] = {
    "linear": _linear,
    "ntk": _ntk,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "llama3": _llama3,
    "longrope": _longrope,
}
