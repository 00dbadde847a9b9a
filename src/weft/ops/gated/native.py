"""SwiGLU's activation in one pass, forward and backward, in C. T tokens, F inner width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weft.ops.dispatch import needs_grad
from weft.ops.native.bindings import TYPE_CODES, is_plain, load_library, num_threads


def accepts(gate_up_T2F: Tensor) -> bool:
    """Return whether the C kernel can read this tensor."""
    return (
        is_plain(gate_up_T2F)
        and gate_up_T2F.is_contiguous()
        and gate_up_T2F.numel() > 0
        and gate_up_T2F.shape[-1] % 2 == 0
        and load_library() is not None
    )


def swiglu(gate_up_T2F: Tensor) -> Tensor:
    """Run the C kernel, with its own backward pass where autograd records."""
    if needs_grad(gate_up_T2F):
        return _SwiGLU.apply(gate_up_T2F)  # pyrefly: ignore
    return _forward(gate_up_T2F)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up_T2F: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up_T2F)
        return _forward(gate_up_T2F)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TF: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        (gate_up_T2F,) = ctx.saved_tensors
        library = load_library()
        assert library is not None
        grad_TF = grad_TF.to(gate_up_T2F.dtype).contiguous()
        dgate_up_T2F = torch.empty_like(gate_up_T2F)
        library.functions.weft_swiglu_backward(
            grad_TF.data_ptr(), gate_up_T2F.data_ptr(), dgate_up_T2F.data_ptr(),
            *_rows_and_width(gate_up_T2F),
            TYPE_CODES[gate_up_T2F.dtype], num_threads(gate_up_T2F.numel()),
        )  # fmt: skip
        return dgate_up_T2F


def _forward(gate_up_T2F: Tensor) -> Tensor:
    library = load_library()
    assert library is not None
    num_rows, width = _rows_and_width(gate_up_T2F)
    y_TF = torch.empty((*gate_up_T2F.shape[:-1], width), dtype=gate_up_T2F.dtype)
    library.functions.weft_swiglu_forward(
        gate_up_T2F.data_ptr(), y_TF.data_ptr(), num_rows, width,
        TYPE_CODES[gate_up_T2F.dtype], num_threads(gate_up_T2F.numel()),
    )  # fmt: skip
    return y_TF


def _rows_and_width(gate_up_T2F: Tensor) -> tuple[int, int]:
    doubled = gate_up_T2F.shape[-1]
    return gate_up_T2F.numel() // doubled, doubled // 2
