"""Packed-document attention in C, forward and backward: no grouping, no padding, no copies.

T tokens, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weft.core.errors import ResourceError
from weft.ops.attention.rule import ScoreRule
from weft.ops.dispatch import needs_grad
from weft.ops.native.bindings import TYPE_CODES, Library, is_plain, load_library

MAX_HEAD_WIDTH = 512  # WEFT_BLOCK of kernels.h
LANES = 16


class _Heads(ctypes.Structure):
    """``Heads`` of packed.c."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("token_stride", ctypes.c_int64),
        ("head_stride", ctypes.c_int64),
        ("type", ctypes.c_int),
    )


def accepts(
    q_TNH: Tensor,
    k_TKH: Tensor,
    v_TKH: Tensor,
    lengths: tuple[int, ...],
    key_lengths: tuple[int, ...],
    rule: ScoreRule,
) -> bool:
    """Return whether the C kernel can read these tensors and is the faster way here."""
    if not rule.is_plain or lengths != key_lengths:
        return False
    if not all(is_plain(t) and t.stride(2) == 1 for t in (q_TNH, k_TKH, v_TKH)):
        return False
    width = q_TNH.shape[2]
    if width % LANES or width > MAX_HEAD_WIDTH or v_TKH.shape != k_TKH.shape:
        return False
    library = load_library()
    return library is not None and library.wide_registers


def packed_attention(
    q_TNH: Tensor,
    k_TKH: Tensor,
    v_TKH: Tensor,
    lengths: tuple[int, ...],
    key_lengths: tuple[int, ...],
    rule: ScoreRule,
) -> Tensor:
    """Run the C kernel, with its own backward pass where autograd records."""
    del key_lengths  # equal to lengths, as ``accepts`` has seen
    starts = torch.tensor((0, *lengths)).cumsum(0)
    arguments = (q_TNH, k_TKH, v_TKH, starts, rule.scale, rule.window or 0)
    if needs_grad(q_TNH, k_TKH, v_TKH):
        return _Packed.apply(*arguments)  # pyrefly: ignore
    return _forward(*arguments)[0]


class _Packed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_TNH: Tensor,
        k_TKH: Tensor,
        v_TKH: Tensor,
        starts: Tensor,
        scale: float,
        window: int,
    ) -> Tensor:
        out_TNH, lse_TN = _forward(q_TNH, k_TKH, v_TKH, starts, scale, window)
        ctx.save_for_backward(q_TNH, k_TKH, v_TKH, out_TNH, lse_TN, starts)
        ctx.scale, ctx.window = scale, window
        return out_TNH

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, grad_TNH: Tensor
    ) -> tuple[Tensor | None, ...]:
        q_TNH, k_TKH, v_TKH, out_TNH, lse_TN, starts = ctx.saved_tensors
        library = _library()
        if grad_TNH.stride(2) != 1:
            grad_TNH = grad_TNH.contiguous()
        grads = tuple(torch.empty(t.shape, dtype=t.dtype) for t in (q_TNH, k_TKH, v_TKH))
        failed = library.functions.weft_packed_attention_backward(
            *map(_heads, (q_TNH, k_TKH, v_TKH, out_TNH, grad_TNH, *grads)), lse_TN.data_ptr(),
            *_sizes(q_TNH, k_TKH, starts), ctx.window, ctx.scale, torch.get_num_threads(),
        )  # fmt: skip
        _check(failed)
        return (*grads, None, None, None)


def _forward(
    q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, starts: Tensor, scale: float, window: int
) -> tuple[Tensor, Tensor]:
    """Return (attended values, log sum exp of each token's scores, [T, N])."""
    library = _library()
    out_TNH = torch.empty(q_TNH.shape, dtype=q_TNH.dtype)
    lse_TN = torch.empty(q_TNH.shape[:2], dtype=torch.float32)
    failed = library.functions.weft_packed_attention_forward(
        *map(_heads, (q_TNH, k_TKH, v_TKH, out_TNH)), lse_TN.data_ptr(),
        *_sizes(q_TNH, k_TKH, starts), window, scale, torch.get_num_threads(),
    )  # fmt: skip
    _check(failed)
    return out_TNH, lse_TN


def _heads(x_TNH: Tensor) -> Any:
    return ctypes.byref(
        _Heads(x_TNH.data_ptr(), x_TNH.stride(0), x_TNH.stride(1), TYPE_CODES[x_TNH.dtype])
    )


def _sizes(q_TNH: Tensor, k_TKH: Tensor, starts: Tensor) -> tuple[int, int, int, int, int]:
    num_documents = starts.shape[0] - 1
    return starts.data_ptr(), num_documents, q_TNH.shape[1], k_TKH.shape[1], q_TNH.shape[2]


def _library() -> Library:
    library = load_library()
    assert library is not None
    return library


def _check(failed: int) -> None:
    if failed:
        raise ResourceError(
            "not enough memory for the working space of attention",
            fix="use shorter documents or fewer threads",
        )
