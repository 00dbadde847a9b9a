"""Rows of one-byte numbers with a float32 factor each: quantized keys, values and latents.

S rows, * any axes between (heads), H width, R width of a part kept as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The largest number each type of code holds; a row's largest magnitude becomes it.
CODE_LIMITS: dict[torch.dtype, float] = {
    torch.int8: 127.0,
    torch.float8_e4m3fn: 448.0,
    torch.float8_e5m2: 57344.0,
}


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """A table of quantized rows that is read like a plain one: an index gives float32 numbers.

    Only the rows asked for are ever turned back into numbers.

    Attributes:
        codes: int8 or float8, [S, *, H].
        scales: What a row's codes are multiplied with, float32, [S, *].
        exact: Further columns that are not quantized, [S, *, R], or none.
    """

    codes: Tensor
    scales: Tensor
    exact: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return these rows, [*rows.shape, *, H + R], float32."""
        values = dequantize(self.codes[rows], self.scales[rows])
        return values if self.exact is None else torch.cat((values, self.exact[rows].float()), -1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the table of numbers."""
        exact = 0 if self.exact is None else self.exact.shape[-1]
        return (*self.codes.shape[:-1], self.codes.shape[-1] + exact)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The tensors that hold the table."""
        stored = (self.codes, self.scales)
        return stored if self.exact is None else (*stored, self.exact)


Rows = Tensor | ScaledRows
"""A table of rows that an index tensor reads."""


def quantize(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return (codes [*, H], scales [*]) with ``values`` about ``scales * codes``.

    Symmetric absolute maximum: ``scale = max |x| / limit`` over the last axis. The error of a
    number is at most ``scale / 2`` for int8 and ``max(2^-(m+1) |x|, scale * s / 2)`` for a float8
    of m mantissa bits and smallest value s (``code_error``). A row of zeros has scale 0; NaN and
    infinity make the whole row NaN.
    """
    limit = CODE_LIMITS[dtype]
    wide = values.float()
    scales = wide.abs().amax(-1) / limit
    steps = torch.where(scales > 0, scales, torch.ones_like(scales)).unsqueeze(-1)
    codes = (wide / steps).clamp(-limit, limit)
    if dtype == torch.int8:
        codes = codes.round().nan_to_num_(0.0)
    return codes.to(dtype), scales


def dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    """Return the numbers of codes [*, H] and scales [*], float32."""
    return codes.float() * scales.unsqueeze(-1)


def code_error(values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Return how far ``quantize`` may move each of ``values`` at most, in their shape."""
    if dtype == torch.int8:
        return (scales / 2).unsqueeze(-1).expand_as(values)
    info = torch.finfo(dtype)
    relative, absolute = info.eps / 2, info.smallest_normal * info.eps / 2
    return torch.maximum(values.abs() * relative, scales.unsqueeze(-1) * absolute)
