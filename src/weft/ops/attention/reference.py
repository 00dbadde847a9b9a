"""Both attention ops as dense softmax, one sequence at a time.

T tokens, N query heads, K key-value heads, G = N / K, H key width, V value width, S keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.attention.layout import PagedLayout
from weft.ops.attention.rule import ScoreRule, distances
from weft.ops.scaled_rows import Rows


def packed_attention(
    q_TNH: Tensor,
    k_SKH: Tensor,
    v_SKV: Tensor,
    lengths: tuple[int, ...],
    key_lengths: tuple[int, ...],
    rule: ScoreRule,
) -> Tensor:
    """Attend within each document of a packed batch."""
    keys, values = k_SKH.split(key_lengths), v_SKV.split(key_lengths)
    documents = zip(q_TNH.split(lengths), keys, values, strict=True)
    return torch.cat([dense_attention(q, k, v, rule) for q, k, v in documents])


def paged_attention(
    q_TNH: Tensor, k_SKH: Rows, v_SKV: Rows, layout: PagedLayout, rule: ScoreRule
) -> Tensor:
    """Attend from each sequence's new tokens to its cached positions."""
    outputs = []
    for row, q in enumerate(q_TNH.split(layout.query_lengths)):
        slots_S = layout.slots_BS[row, : layout.context_lengths[row]]
        k, v = k_SKH[slots_S].to(q.dtype), v_SKV[slots_S].to(q.dtype)
        outputs.append(dense_attention(q, k, v, rule))
    return torch.cat(outputs)


def dense_attention(q_TNH: Tensor, k_SKH: Tensor, v_SKV: Tensor, rule: ScoreRule) -> Tensor:
    """Attend from T queries to S keys with every score in memory."""
    wide = torch.promote_types(q_TNH.dtype, torch.float32)
    group = q_TNH.shape[1] // k_SKH.shape[1]
    q, k, v = (t.to(wide).transpose(0, 1) for t in (q_TNH, k_SKH, v_SKV))
    scores_NTS = (q @ k.repeat_interleave(group, 0).transpose(1, 2)) * rule.scale
    if rule.softcap is not None:
        scores_NTS = rule.softcap * torch.tanh(scores_NTS / rule.softcap)
    num_queries, num_keys = scores_NTS.shape[1:]
    distance_TS = distances(num_queries, num_keys, q.device)
    bias_NTS = rule.bias(distance_TS)
    if bias_NTS is not None:
        scores_NTS = scores_NTS + bias_NTS
    scores_NTS = scores_NTS.masked_fill(~rule.visible(distance_TS), float("-inf"))
    if rule.sinks_N is not None:
        sinks_NT1 = rule.sinks_N.to(wide)[:, None, None].expand(-1, num_queries, 1)
        scores_NTS = torch.cat([scores_NTS, sinks_NT1], dim=-1)
    weights_NTS = scores_NTS.softmax(-1)[..., :num_keys]
    mixed_NTV = weights_NTS @ v.repeat_interleave(group, 0)
    return mixed_NTV.transpose(0, 1).to(q_TNH.dtype)
