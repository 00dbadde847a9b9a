"""Rotary positions in one pass, forward and backward, in C.

T tokens, N heads, H head width, R rotated pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weft.ops.dispatch import needs_grad
from weft.ops.native.bindings import TYPE_CODES, is_plain, load_library, num_threads

MAX_HEAD_WIDTH = 512  # WEFT_BLOCK of kernels.h


def accepts(x_TNH: Tensor, cos_TR: Tensor, sin_TR: Tensor, layout: str) -> bool:
    """Return whether the C kernel can read these tensors."""
    del layout
    return (
        is_plain(x_TNH)
        and x_TNH.dim() == 3
        and x_TNH.stride(2) == 1
        and 0 < x_TNH.shape[2] <= MAX_HEAD_WIDTH
        and x_TNH.numel() > 0
        and _is_table(cos_TR)
        and _is_table(sin_TR)
        and cos_TR.shape == sin_TR.shape == (x_TNH.shape[0], cos_TR.shape[1])
        and 2 * cos_TR.shape[1] <= x_TNH.shape[2]
        and not needs_grad(cos_TR, sin_TR)
        and load_library() is not None
    )


def _is_table(table_TR: Tensor) -> bool:
    return is_plain(table_TR) and table_TR.dtype == torch.float32 and table_TR.is_contiguous()


def apply_rotary(x_TNH: Tensor, cos_TR: Tensor, sin_TR: Tensor, layout: str) -> Tensor:
    """Run the C kernel, with its own backward pass where autograd records."""
    if needs_grad(x_TNH):
        return _Rotary.apply(x_TNH, cos_TR, sin_TR, layout)  # pyrefly: ignore
    return _turn(x_TNH, cos_TR, sin_TR, layout, 1.0)


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TNH: Tensor, cos_TR: Tensor, sin_TR: Tensor, layout: str) -> Tensor:
        ctx.save_for_backward(cos_TR, sin_TR)
        ctx.layout = layout
        return _turn(x_TNH, cos_TR, sin_TR, layout, 1.0)

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, grad_TNH: Tensor
    ) -> tuple[Tensor, None, None, None]:
        cos_TR, sin_TR = ctx.saved_tensors
        if grad_TNH.stride(2) != 1:
            grad_TNH = grad_TNH.contiguous()
        return _turn(grad_TNH, cos_TR, sin_TR, ctx.layout, -1.0), None, None, None


def _turn(x_TNH: Tensor, cos_TR: Tensor, sin_TR: Tensor, layout: str, sign: float) -> Tensor:
    library = load_library()
    assert library is not None
    y_TNH = torch.empty(x_TNH.shape, dtype=x_TNH.dtype)
    library.functions.weft_rotary(
        x_TNH.data_ptr(), y_TNH.data_ptr(), cos_TR.data_ptr(), sin_TR.data_ptr(),
        *x_TNH.shape, cos_TR.shape[1], x_TNH.stride(0), x_TNH.stride(1), sign,
        layout == "interleaved", TYPE_CODES[x_TNH.dtype], num_threads(x_TNH.numel()),
    )  # fmt: skip
    return y_TNH
