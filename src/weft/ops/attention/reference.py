"""Both attention ops as dense softmax, one sequence at a time.

T tokens, N query heads, K key-value heads, G = N / K, H head width, S cached positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.attention.layout import PagedLayout


def packed_attention(
    q_TNH: Tensor,
    k_TKH: Tensor,
    v_TKH: Tensor,
    lengths: tuple[int, ...],
    scale: float,
    window: int | None,
) -> Tensor:
    """Attend causally within each document of a packed batch."""
    documents = zip(q_TNH.split(lengths), k_TKH.split(lengths), v_TKH.split(lengths), strict=True)
    return torch.cat([dense_attention(q, k, v, scale, window) for q, k, v in documents])


def paged_attention(
    q_TNH: Tensor,
    k_SKH: Tensor,
    v_SKH: Tensor,
    layout: PagedLayout,
    scale: float,
    window: int | None,
) -> Tensor:
    """Attend causally from each sequence's new tokens to its cached positions."""
    outputs = []
    for row, q in enumerate(q_TNH.split(layout.query_lengths)):
        slots_S = layout.slots_BS[row, : layout.context_lengths[row]]
        k, v = k_SKH[slots_S].to(q.dtype), v_SKH[slots_S].to(q.dtype)
        outputs.append(dense_attention(q, k, v, scale, window))
    return torch.cat(outputs)


def dense_attention(
    q_TNH: Tensor, k_SKH: Tensor, v_SKH: Tensor, scale: float, window: int | None
) -> Tensor:
    """Attend from the last T of S positions, causally, with every score in memory."""
    wide = torch.promote_types(q_TNH.dtype, torch.float32)
    group = q_TNH.shape[1] // k_SKH.shape[1]
    q, k, v = (t.to(wide).transpose(0, 1) for t in (q_TNH, k_SKH, v_SKH))
    scores_NTS = (q @ k.repeat_interleave(group, 0).transpose(1, 2)) * scale
    mask_TS = causal_mask(q.shape[1], k.shape[1], window, q.device)
    weights_NTS = scores_NTS.masked_fill(~mask_TS, float("-inf")).softmax(-1)
    mixed_NTH = weights_NTS @ v.repeat_interleave(group, 0)
    return mixed_NTH.transpose(0, 1).to(q_TNH.dtype)


def causal_mask(
    num_queries: int, num_keys: int, window: int | None, device: torch.device
) -> Tensor:
    """Return which keys each of the last ``num_queries`` positions sees, [T, S], bool."""
    positions_S = torch.arange(num_keys, device=device)
    positions_T1 = positions_S[num_keys - num_queries :].unsqueeze(1)
    mask_TS = positions_S <= positions_T1
    if window is not None:
        mask_TS &= positions_S > positions_T1 - window
    return mask_TS
