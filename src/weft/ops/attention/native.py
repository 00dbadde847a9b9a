"""Attention over the paged cache in C: reads the cache where it lies.

A token's result depends on its own sequence only, bit for bit: not on the batch, not on the
chunk it was computed in. T tokens, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from weft.ops.attention.layout import PagedLayout
from weft.ops.attention.rule import ScoreRule
from weft.ops.dispatch import needs_grad
from weft.ops.native.bindings import (
    CODE_TYPES,
    TYPE_CODES,
    is_plain,
    load_library,
    num_threads,
)
from weft.ops.scaled_rows import Rows, ScaledRows

MAX_HEAD_WIDTH, MAX_GROUP = 256, 16  # MAX_WIDTH and MAX_GROUP of attention.c


def accepts(
    q_TNH: Tensor,
    k_SKH: Rows,
    v_SKH: Rows,
    layout: PagedLayout,
    rule: ScoreRule,
) -> bool:
    """Return whether the C kernel can read these tensors and is the faster way."""
    return (
        replace(rule, num_first=0).is_plain
        and is_plain(q_TNH)
        and _readable(k_SKH, v_SKH)
        and k_SKH.shape == v_SKH.shape
        and q_TNH.stride(2) == 1
        and layout.slots_BS.is_cpu
        and layout.slots_BS.stride(1) == 1
        and q_TNH.shape[2] <= MAX_HEAD_WIDTH
        and q_TNH.shape[2] % 16 == 0
        and q_TNH.shape[1] <= MAX_GROUP * k_SKH.shape[1]
        and not needs_grad(q_TNH)
        and load_library() is not None
    )


def paged_attention(
    q_TNH: Tensor,
    k_SKH: Rows,
    v_SKH: Rows,
    layout: PagedLayout,
    rule: ScoreRule,
) -> Tensor:
    """Run the C kernel: one softmax over the cache for each token and head."""
    library = load_library()
    assert library is not None
    num_tokens, num_heads, width = q_TNH.shape
    num_kv_heads = k_SKH.shape[1]
    out_TNH = torch.empty(q_TNH.shape, dtype=q_TNH.dtype)
    slots_BS = layout.slots_BS
    work = layout.num_scores * num_heads * width
    keys, key_scales, type_code = _stored(k_SKH)
    values, value_scales, _ = _stored(v_SKH)
    library.functions.weft_paged_attention(
        q_TNH.data_ptr(), keys, values, key_scales, value_scales, out_TNH.data_ptr(),
        slots_BS.data_ptr(), layout.tokens_T.data_ptr(), layout.rows_T.data_ptr(),
        layout.positions_T.data_ptr(), num_tokens, num_heads, num_kv_heads, width,
        slots_BS.stride(0), q_TNH.stride(0), q_TNH.stride(1), rule.window or 0, rule.num_first,
        rule.scale, TYPE_CODES[q_TNH.dtype], type_code, num_threads(work),
    )  # fmt: skip
    return out_TNH


def _readable(k_SKH: Rows, v_SKH: Rows) -> bool:
    """Return whether C can read keys and values: plain, or both quantized to the same type."""
    if isinstance(k_SKH, ScaledRows) and isinstance(v_SKH, ScaledRows):
        codes, scales = (k_SKH.codes, v_SKH.codes), (k_SKH.scales, v_SKH.scales)
        typed = k_SKH.codes.dtype in CODE_TYPES and all(is_plain(t) for t in scales)
        whole = k_SKH.exact is None and v_SKH.exact is None
        return typed and whole and _alike(*codes) and _alike(*scales)
    if isinstance(k_SKH, ScaledRows) or isinstance(v_SKH, ScaledRows):
        return False
    plain = is_plain(k_SKH) and is_plain(v_SKH) and _alike(k_SKH, v_SKH)
    return plain and not needs_grad(k_SKH, v_SKH)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.is_contiguous() and other.is_contiguous()


def _stored(rows: Rows) -> tuple[int, int | None, int]:
    """Return the addresses of numbers and factors, and the numbers' type."""
    if isinstance(rows, ScaledRows):
        return rows.codes.data_ptr(), rows.scales.data_ptr(), CODE_TYPES[rows.codes.dtype]
    return rows.data_ptr(), None, TYPE_CODES[rows.dtype]
