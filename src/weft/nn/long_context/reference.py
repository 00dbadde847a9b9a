"""The policies as masks over all keys of one sequence: the definition, and quadratic.

T tokens, N query heads, K key-value heads, G = N / K, H head width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from weft.nn.long_context.policy import HeavyHitter, SinkWindow
from weft.ops import ScoreRule
from weft.ops.attention.reference import dense_attention


def sink_window_attention(
    q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, rule: ScoreRule, policy: SinkWindow
) -> Tensor:
    """Attend to key j from token t where ``j < num_sinks or t - window < j <= t``, [T, N, H]."""
    rule = replace(rule, window=policy.window, num_first=policy.num_sinks)
    return dense_attention(q_TNH, k_TKH, v_TKH, rule)


def heavy_hitter_attention(
    q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, rule: ScoreRule, policy: HeavyHitter
) -> tuple[Tensor, Tensor]:
    """Attend to what each head still has when token t comes (Zhang et al. 2023, algorithm 1).

    Returns:
        The attended values, [T, N, H], and which keys each token saw, [T, K, T], bool.
    """
    num_tokens, num_kv_heads = k_TKH.shape[:2]
    kept_KT = torch.zeros(num_kv_heads, num_tokens, dtype=torch.bool)
    score_KT = torch.zeros(num_kv_heads, num_tokens)
    outputs, seen = [], []
    for token in range(num_tokens):
        if token >= policy.budget:
            candidates_KT = kept_KT.clone()
            candidates_KT[:, token - policy.recent :] = False
            losers_K = score_KT.masked_fill(~candidates_KT, float("inf")).argmin(-1)
            kept_KT[torch.arange(num_kv_heads), losers_K] = False
        kept_KT[:, token] = True
        weights_KGT = _weights(q_TNH[token], k_TKH, kept_KT, rule)
        score_KT += weights_KGT.sum(1)
        outputs.append((weights_KGT @ v_TKH.transpose(0, 1)).flatten(0, 1))
        seen.append(kept_KT.clone())
    return torch.stack(outputs), torch.stack(seen)


def _weights(q_NH: Tensor, k_TKH: Tensor, kept_KT: Tensor, rule: ScoreRule) -> Tensor:
    q_KGH = q_NH.unflatten(0, (k_TKH.shape[1], -1))
    scores_KGT = torch.einsum("kgh,tkh->kgt", q_KGH, k_TKH) * rule.scale
    return scores_KGT.masked_fill(~kept_KT[:, None], float("-inf")).softmax(-1)
