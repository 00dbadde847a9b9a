"""Attention over the paged cache in C: reads the cache where it lies.

A token's result depends on its own sequence only, bit for bit: not on the batch, not on the
chunk it was computed in. T tokens, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.attention.layout import PagedLayout
from weft.ops.attention.rule import ScoreRule
from weft.ops.dispatch import needs_grad
from weft.ops.native.bindings import TYPE_CODES, is_plain, load_library, num_threads

MAX_HEAD_WIDTH, MAX_GROUP = 256, 16  # MAX_WIDTH and MAX_GROUP of attention.c


def accepts(
    q_TNH: Tensor,
    k_SKH: Tensor,
    v_SKH: Tensor,
    layout: PagedLayout,
    rule: ScoreRule,
) -> bool:
    """Return whether the C kernel can read these tensors and is the faster way."""
    return (
        rule.is_plain
        and is_plain(q_TNH)
        and is_plain(k_SKH)
        and is_plain(v_SKH)
        and k_SKH.dtype == v_SKH.dtype
        and k_SKH.shape == v_SKH.shape
        and q_TNH.stride(2) == 1
        and layout.slots_BS.is_cpu
        and layout.slots_BS.stride(1) == 1
        and k_SKH.is_contiguous()
        and v_SKH.is_contiguous()
        and q_TNH.shape[2] <= MAX_HEAD_WIDTH
        and q_TNH.shape[2] % 16 == 0
        and q_TNH.shape[1] <= MAX_GROUP * k_SKH.shape[1]
        and not needs_grad(q_TNH, k_SKH, v_SKH)
        and load_library() is not None
    )


def paged_attention(
    q_TNH: Tensor,
    k_SKH: Tensor,
    v_SKH: Tensor,
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
    library.functions.weft_paged_attention(
        q_TNH.data_ptr(), k_SKH.data_ptr(), v_SKH.data_ptr(), out_TNH.data_ptr(),
        slots_BS.data_ptr(), layout.tokens_T.data_ptr(), layout.rows_T.data_ptr(),
        layout.positions_T.data_ptr(), num_tokens, num_heads, num_kv_heads, width,
        slots_BS.stride(0), q_TNH.stride(0), q_TNH.stride(1), rule.window or 0, rule.scale,
        TYPE_CODES[q_TNH.dtype], TYPE_CODES[k_SKH.dtype], num_threads(work),
    )  # fmt: skip
    return out_TNH
