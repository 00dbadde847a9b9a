"""Affine integer quantization: q = clip(round(x / scale) + zero).

O output rows, I input columns, G groups of columns per row. Source: Jacob et al. 2018,
arXiv:1712.05877, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class AffineScheme:
    """How numbers become integers.

    Attributes:
        bits: Width of the integers, 2 to 8.
        group_size: Columns that share a scale; none means a whole row.
        symmetric: Zero maps to zero and no zero point is stored.
    """

    bits: int = 8
    group_size: int | None = None
    symmetric: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ConfigError(f"quantization to {self.bits} bits; 2 to 8 are possible")

    @property
    def low(self) -> int:
        return -(2 ** (self.bits - 1))

    @property
    def high(self) -> int:
        return 2 ** (self.bits - 1) - 1


@dataclass(frozen=True)
class Quantized:
    """Integers [O, I] with a scale and a zero point per group, [O, G]."""

    values_OI: Tensor
    scales_OG: Tensor
    zeros_OG: Tensor


def quantize(
    x: Tensor, scale: Tensor | float, zero: Tensor | float, scheme: AffineScheme
) -> Tensor:
    """Round to the nearest representable integer, ties to even, and clip; int8."""
    return (x / scale + zero).round().clamp(scheme.low, scheme.high).to(torch.int8)


def dequantize(values: Tensor, scale: Tensor | float, zero: Tensor | float) -> Tensor:
    """Return (q - zero) * scale, float32."""
    return (values.float() - zero) * scale


def quantize_weight(weight_OI: Tensor, scheme: AffineScheme) -> Quantized:
    """Quantize a matrix by rows and groups of columns.

    Raises:
        ConfigError: the group size does not divide the number of columns.
    """
    grouped_OGC = _grouped(weight_OI.float(), scheme)
    if scheme.symmetric:
        scales_OG = grouped_OGC.abs().amax(-1) / scheme.high
        zeros_OG = torch.zeros_like(scales_OG)
    else:
        low_OG = grouped_OGC.amin(-1).clamp(max=0.0)
        high_OG = grouped_OGC.amax(-1).clamp(min=0.0)
        scales_OG = (high_OG - low_OG) / (scheme.high - scheme.low)
        zeros_OG = scheme.low - (low_OG / scales_OG.clamp(min=1e-12)).round()
    scales_OG = scales_OG.clamp(min=1e-12)
    values_OGC = quantize(grouped_OGC, scales_OG[..., None], zeros_OG[..., None], scheme)
    return Quantized(values_OGC.flatten(1), scales_OG, zeros_OG)


def dequantize_weight(quantized: Quantized) -> Tensor:
    """Return the float32 matrix the integers stand for, [O, I]."""
    num_groups = quantized.scales_OG.shape[1]
    values_OGC = quantized.values_OI.unflatten(1, (num_groups, -1))
    return dequantize(
        values_OGC, quantized.scales_OG[..., None], quantized.zeros_OG[..., None]
    ).flatten(1)


def _grouped(weight_OI: Tensor, scheme: AffineScheme) -> Tensor:
    size = scheme.group_size or weight_OI.shape[1]
    if weight_OI.shape[1] % size:
        raise ConfigError(
            f"group_size {size} does not divide the {weight_OI.shape[1]} columns of a weight",
            fix="choose a divisor, or none for one group a row",
        )
    return weight_OI.unflatten(1, (-1, size))
