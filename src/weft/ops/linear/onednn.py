"""float32 matrix products through oneDNN. M, K, N are the sizes of a product [M, K] [K, N].

``torch.mm`` calls MKL for float32, which leaves AVX-512 unused on processors of other makers:
oneDNN was 2.0 to 2.3 times faster on an AMD EPYC at every size from 64 rows on, with the same
float32 arithmetic. It is reached through the operator that ``torch.compile`` emits for linear
layers; it takes transposed views without copying them.

A row of its result has the same bits whatever the other rows are, from two rows on and for any
number of threads; MKL's has not. The engine relies on it: a token is computed alike alone and in
any batch, and alike by the trainer.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weft.ops.dispatch import needs_grad

# One row is a matrix-vector product, for which oneDNN takes another path.
MIN_ROWS = 2


def accepts(x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> bool:
    """Return whether oneDNN computes this map, and not in a type that autocast would choose."""
    return (
        x_TD.dim() == 2
        and multiplies(x_TD, weight_FD)
        and (bias_F is None or bias_F.dtype == torch.float32)
        and not torch.is_autocast_enabled("cpu")
    )


def multiplies(a_MK: Tensor, b: Tensor) -> bool:
    """Return whether both are float32 matrices on the CPU, large enough, and oneDNN is there."""
    if torch.compiler.is_compiling():  # the compiler chooses for itself
        return False
    return (
        a_MK.dtype == b.dtype == torch.float32
        and a_MK.device.type == b.device.type == "cpu"
        and a_MK.shape[0] >= MIN_ROWS
        and b.numel() > 0
        and available()
    )


def linear(x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
    """Return ``x W^T + b`` with its own backward pass."""
    if not needs_grad(x_TD, weight_FD):
        return _call(x_TD, weight_FD, bias_F)
    return _Linear.apply(x_TD, weight_FD, bias_F)  # pyrefly: ignore


def matmul(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """Return ``a b``, by oneDNN where it takes them; not differentiable."""
    if multiplies(a_MK, b_KN):
        return _call(a_MK, b_KN.t(), None)
    return torch.mm(a_MK, b_KN)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_TD, weight_FD)
        return _call(x_TD, weight_FD, bias_F)

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, grad_TF: Tensor
    ) -> tuple[Tensor | None, ...]:
        x_TD, weight_FD = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            matmul(grad_TF, weight_FD) if for_x else None,
            matmul(grad_TF.t(), x_TD) if for_weight else None,
            grad_TF.sum(0) if for_bias else None,
        )


def _call(x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_MK, weight_NK, bias_N, "none", [], "")


@functools.cache
def available() -> bool:
    """Return whether this torch has oneDNN and the operator."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
