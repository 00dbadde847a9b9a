"""One product per non-empty expert. A rows, I inner, O outer width, E experts.

Autograd's own gradient of a slice ``weight[e]`` is as large as the whole stack; here each expert
writes its part of one stack. Rows are padded as ``pad_rows`` says, so that in float32 a row's
result has the same bits however many rows its expert got.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weft.ops.dispatch import needs_grad
from weft.ops.linear import onednn
from weft.ops.linear.rows import pad_rows


def accepts(x_AI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, counts_E: Tensor) -> bool:
    """Return whether all have one type and no autocast would choose another."""
    return x_AI.dtype == weight_EOI.dtype and not torch.is_autocast_enabled(x_AI.device.type)


def grouped_linear(
    x_AI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, counts_E: Tensor
) -> Tensor:
    """Map each expert's rows by its own matrix, with its own backward pass."""
    counts = counts_E.tolist()
    if not needs_grad(x_AI, weight_EOI):
        return _forward(x_AI, weight_EOI, bias_EO, counts)
    return _GroupedLinear.apply(x_AI, weight_EOI, bias_EO, counts)  # pyrefly: ignore


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_AI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, counts: list[int]
    ) -> Tensor:
        ctx.save_for_backward(x_AI, weight_EOI)
        ctx.counts = counts
        return _forward(x_AI, weight_EOI, bias_EO, counts)

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, grad_AO: Tensor
    ) -> tuple[Tensor | None, ...]:
        x_AI, weight_EOI = ctx.saved_tensors
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        dx_AI = torch.empty_like(x_AI) if for_x else None
        dweight_EOI = torch.zeros_like(weight_EOI) if for_weight else None
        dbias_EO = weight_EOI.new_zeros(weight_EOI.shape[:2]) if for_bias else None
        for expert, rows in _segments(ctx.counts):
            grad = grad_AO[rows]
            if dx_AI is not None:
                dx_AI[rows] = onednn.matmul(grad, weight_EOI[expert])
            if dweight_EOI is not None:
                dweight_EOI[expert] = onednn.matmul(grad.t(), x_AI[rows])
            if dbias_EO is not None:
                dbias_EO[expert] = grad.sum(0)
        return dx_AI, dweight_EOI, dbias_EO, None


def _forward(x_AI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, counts: list[int]) -> Tensor:
    y_AO = x_AI.new_empty(x_AI.shape[0], weight_EOI.shape[1])
    for expert, rows in _segments(counts):
        bias_O = None if bias_EO is None else bias_EO[expert]
        y_AO[rows] = _product(x_AI[rows], weight_EOI[expert], bias_O)
    return y_AO


def _product(x_AI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    if x_AI.dtype != torch.float32 or x_AI.device.type != "cpu":
        return torch.nn.functional.linear(x_AI, weight_OI, bias_O)
    padded = pad_rows(x_AI)
    if onednn.accepts(padded, weight_OI, bias_O):
        return onednn.linear(padded, weight_OI, bias_O)[: x_AI.shape[0]]
    return torch.nn.functional.linear(padded, weight_OI, bias_O)[: x_AI.shape[0]]


def _segments(counts: list[int]) -> Iterator[tuple[int, slice]]:
    """Yield each non-empty expert and its rows."""
    start = 0
    for expert, count in enumerate(counts):
        if count:
            yield expert, slice(start, start + count)
        start += count
