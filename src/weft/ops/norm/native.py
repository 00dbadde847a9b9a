"""RMSNorm in one pass over each row, forward and backward, in C.

T tokens (any leading axes), D normalised width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weft.ops.dispatch import needs_grad
from weft.ops.native.bindings import TYPE_CODES, is_plain, load_library, num_threads


def accepts(x_TD: Tensor, weight_D: Tensor, eps: float) -> bool:
    """Return whether the C kernel can read these tensors."""
    del eps
    return (
        is_plain(x_TD)
        and is_plain(weight_D)
        and x_TD.dim() in (2, 3)
        and x_TD.stride(-1) == 1
        and weight_D.is_contiguous()
        and x_TD.numel() > 0
        and load_library() is not None
    )


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Run the C kernel, with its own backward pass where autograd records."""
    if needs_grad(x_TD, weight_D):
        return _RMSNorm.apply(x_TD, weight_D, eps)  # pyrefly: ignore
    return _forward(x_TD, weight_D, eps, None)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        rstd = torch.empty(x_TD.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(x_TD, weight_D, rstd)
        return _forward(x_TD, weight_D, eps, rstd)

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, grad_TD: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        x_TD, weight_D, rstd = ctx.saved_tensors
        return (*_backward(grad_TD.contiguous(), x_TD, weight_D, rstd), None)


def _forward(x_TD: Tensor, weight_D: Tensor, eps: float, rstd: Tensor | None) -> Tensor:
    library = load_library()
    assert library is not None
    y_TD = torch.empty(x_TD.shape, dtype=_result_type(x_TD))
    library.functions.weft_rms_norm_forward(
        x_TD.data_ptr(), weight_D.data_ptr(), y_TD.data_ptr(),
        None if rstd is None else rstd.data_ptr(),
        *_rows(x_TD), eps,
        TYPE_CODES[x_TD.dtype], TYPE_CODES[weight_D.dtype], TYPE_CODES[y_TD.dtype],
        num_threads(x_TD.numel()),
    )  # fmt: skip
    return y_TD


def _result_type(x_TD: Tensor) -> torch.dtype:
    """Under autocast the next matmul would cast the result: write it in that type at once."""
    if x_TD.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        return dtype if dtype in TYPE_CODES else x_TD.dtype
    return x_TD.dtype


def _backward(
    grad_TD: Tensor, x_TD: Tensor, weight_D: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor]:
    library = load_library()
    assert library is not None
    width = x_TD.shape[-1]
    num_parts = library.functions.weft_rms_norm_num_parts(rstd.numel())
    dx_TD = torch.empty(x_TD.shape, dtype=x_TD.dtype)
    parts, dweight_D = torch.empty(num_parts, width), torch.empty(width)
    library.functions.weft_rms_norm_backward(
        grad_TD.data_ptr(), x_TD.data_ptr(), weight_D.data_ptr(), rstd.data_ptr(),
        dx_TD.data_ptr(), parts.data_ptr(), dweight_D.data_ptr(), *_rows(x_TD),
        TYPE_CODES[x_TD.dtype], TYPE_CODES[weight_D.dtype], TYPE_CODES[grad_TD.dtype],
        num_threads(x_TD.numel()),
    )  # fmt: skip
    return dx_TD, dweight_D.to(weight_D.dtype)


def _rows(x_TD: Tensor) -> tuple[int, int, int, int, int]:
    """Return (outer rows, inner rows, their strides, width) of a 2-D or 3-D tensor."""
    if x_TD.dim() == 2:
        return x_TD.shape[0], 1, x_TD.stride(0), 0, x_TD.shape[1]
    return x_TD.shape[0], x_TD.shape[1], x_TD.stride(0), x_TD.stride(1), x_TD.shape[2]
