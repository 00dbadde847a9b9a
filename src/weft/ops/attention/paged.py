"""Attention over the paged cache in torch: decode rows together, prefill chunks one by one.

T tokens, B sequences, N query heads, K key-value heads, G = N / K, H head width,
S cached positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.ops.attention.layout import PagedLayout
from weft.ops.attention.reference import causal_mask


def paged_attention(
    q_TNH: Tensor,
    k_SKH: Tensor,
    v_SKH: Tensor,
    layout: PagedLayout,
    scale: float,
    window: int | None,
) -> Tensor:
    """Attend causally from each sequence's new tokens to its cached positions."""
    if layout.decode:
        mask_BS = layout.visible_BS(window)
        return decode_rows(q_TNH, k_SKH, v_SKH, layout.slots_BS, mask_BS, scale)
    outputs = []
    for row, q in enumerate(q_TNH.split(layout.query_lengths)):
        slots_S = layout.slots_BS[row, : layout.context_lengths[row]]
        outputs.append(extend_row(q, k_SKH[slots_S], v_SKH[slots_S], scale, window))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def decode_rows(
    q_BNH: Tensor, k_SKH: Tensor, v_SKH: Tensor, slots_BS: Tensor, mask_BS: Tensor, scale: float
) -> Tensor:
    """Attend from one token of each sequence.

    The G query heads of a group become G queries of one key head: a view, where
    ``enable_gqa`` would copy the keys (6 to 7 times slower on a CPU).
    """
    num_kv_heads = k_SKH.shape[1]
    q_BKGH = q_BNH.unflatten(1, (num_kv_heads, -1))
    k_BKSH = k_SKH[slots_BS].to(q_BNH.dtype).transpose(1, 2)
    v_BKSH = v_SKH[slots_BS].to(q_BNH.dtype).transpose(1, 2)
    mask = mask_BS[:, None, None, :]
    out_BKGH = F.scaled_dot_product_attention(q_BKGH, k_BKSH, v_BKSH, attn_mask=mask, scale=scale)
    return out_BKGH.flatten(1, 2)


def extend_row(
    q_TNH: Tensor, k_SKH: Tensor, v_SKH: Tensor, scale: float, window: int | None
) -> Tensor:
    """Attend from the last T of one sequence's S positions."""
    num_queries, num_keys = q_TNH.shape[0], k_SKH.shape[0]
    q, k, v = (t.to(q_TNH.dtype).transpose(0, 1).unsqueeze(0) for t in (q_TNH, k_SKH, v_SKH))
    is_whole = num_queries == num_keys and (window is None or window >= num_keys)
    mask = None if is_whole else causal_mask(num_queries, num_keys, window, q.device)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_whole, scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return out.squeeze(0).transpose(0, 1)
