"""Attention over the paged cache in torch: decode rows together, prefill chunks one by one.

T tokens, B sequences, N query heads, K key-value heads, G = N / K, H key width, V value width,
S cached positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.attention.layout import PagedLayout
from weft.ops.attention.packed import attend_rows
from weft.ops.attention.rule import ScoreRule
from weft.ops.attention.softmax import softmax_attention
from weft.ops.scaled_rows import Rows


def paged_attention(
    q_TNH: Tensor, k_SKH: Rows, v_SKV: Rows, layout: PagedLayout, rule: ScoreRule
) -> Tensor:
    """Attend from each sequence's new tokens to its cached positions."""
    if layout.apart:
        pairs = zip(q_TNH.split(1), layout.single_tokens, strict=True)
        return torch.cat([decode_rows(q, k_SKH, v_SKV, alone, rule) for q, alone in pairs])
    if layout.decode:
        return decode_rows(q_TNH, k_SKH, v_SKV, layout, rule)
    outputs = []
    for row, q in enumerate(q_TNH.split(layout.query_lengths)):
        slots_S = layout.slots_BS[row, : layout.context_lengths[row]]
        q, k, v = (
            t.to(q_TNH.dtype).transpose(0, 1).unsqueeze(0)
            for t in (q, k_SKH[slots_S], v_SKV[slots_S])
        )
        outputs.append(attend_rows(q, k, v, rule).squeeze(0).transpose(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def decode_rows(
    q_BNH: Tensor, k_SKH: Rows, v_SKV: Rows, layout: PagedLayout, rule: ScoreRule
) -> Tensor:
    """Attend from one token of each sequence.

    The G query heads of a group become G queries of one key head: a view, where
    ``enable_gqa`` would copy the keys (6 to 7 times slower on a CPU).
    """
    groups = (k_SKH.shape[1], -1)
    k_BKSH, v_BKSV = (t[layout.slots_BS].to(q_BNH.dtype).transpose(1, 2) for t in (k_SKH, v_SKV))
    bias_BN1S = None if rule.is_plain else rule.bias(layout.distances_BS.unsqueeze(1))
    out_BKGV = softmax_attention(
        q_BNH.unflatten(1, groups),
        k_BKSH,
        v_BKSV,
        scale=rule.scale,
        softcap=rule.softcap,
        visible=layout.visible_BS(rule.window, rule.num_first)[:, None, None, :],
        bias=None if bias_BN1S is None else bias_BN1S.squeeze(2).unflatten(1, groups),
        sinks_N11=None if rule.sinks_N is None else rule.sinks_N.view(*groups, 1),
    )
    return out_BKGV.flatten(1, 2)
