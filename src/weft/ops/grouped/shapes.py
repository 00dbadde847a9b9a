"""The grouped map on the meta device, where there are shapes but no counts to read."""

from __future__ import annotations

from torch import Tensor


def accepts(x_AI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, counts_E: Tensor) -> bool:
    """Return whether the rows have a shape only."""
    return x_AI.is_meta


def grouped_linear(
    x_AI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, counts_E: Tensor
) -> Tensor:
    """Return as many rows of the outer width."""
    return x_AI.new_empty(x_AI.shape[0], weight_EOI.shape[1])
