"""Many short documents as one padded SDPA call.

T queries, S keys, N query heads, K key-value heads, H key width, V value width, B documents,
L and M their longest numbers of queries and keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.attention.rule import ScoreRule, distances
from weft.ops.attention.softmax import softmax_attention

# Below this many kinds of documents, one call for each kind is cheaper than padding.
MIN_SHAPES = 4
# Scores of a head with padding; more of them cost more than the calls that padding saves.
MAX_SCORES = 1 << 18


def accepts(
    q_TNH: Tensor,
    k_SKH: Tensor,
    v_SKV: Tensor,
    lengths: tuple[int, ...],
    key_lengths: tuple[int, ...],
    rule: ScoreRule,
) -> bool:
    """Return whether padding is possible and cheap.

    Padding goes behind a document, so a query's distance to a key is known without its document
    only where queries and keys are as many, or where distances do not matter.
    """
    if not lengths or min(lengths) < 1 or min(key_lengths) < 1:
        return False
    if lengths != key_lengths and not _ignores_distance(rule):
        return False
    if len(set(zip(lengths, key_lengths, strict=True))) < MIN_SHAPES:
        return False
    return len(lengths) * max(lengths) * max(key_lengths) <= MAX_SCORES


def packed_attention(
    q_TNH: Tensor,
    k_SKH: Tensor,
    v_SKV: Tensor,
    lengths: tuple[int, ...],
    key_lengths: tuple[int, ...],
    rule: ScoreRule,
) -> Tensor:
    """Attend within each document of a packed batch."""
    device = q_TNH.device
    rows_T = padded_rows(lengths, device)
    rows_S = rows_T if key_lengths == lengths else padded_rows(key_lengths, device)
    q = _pad(q_TNH, rows_T, len(lengths), max(lengths))
    k, v = (_pad(x, rows_S, len(lengths), max(key_lengths)) for x in (k_SKH, v_SKV))
    exists_BM = torch.arange(max(key_lengths), device=device) < torch.tensor(
        key_lengths, device=device
    ).unsqueeze(1)
    visible, bias = exists_BM[:, None, None, :], None
    if not _ignores_distance(rule):
        distance_LM = distances(max(lengths), max(key_lengths), device)
        visible, bias = visible & rule.visible(distance_LM), rule.bias(distance_LM)
        # A row of padding must see something, or its softmax has no value and no gradient.
        visible = visible | (distance_LM == 0)
    out_BNLV = softmax_attention(
        q,
        k,
        v,
        scale=rule.scale,
        softcap=rule.softcap,
        visible=visible,
        bias=bias,
        sinks_N11=None if rule.sinks_N is None else rule.sinks_N[:, None, None],
    )
    return out_BNLV.transpose(1, 2).flatten(0, 1).index_select(0, rows_T)


def padded_rows(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the row of each token in a padded batch laid flat, int64, [T].

    >>> padded_rows((1, 3), torch.device("cpu")).tolist()
    [0, 3, 4, 5]
    """
    lengths_B = torch.tensor(lengths)
    starts_B = lengths_B.cumsum(0) - lengths_B
    # Document b begins at row b L instead of at the sum of the lengths before it.
    shifts_B = torch.arange(len(lengths)) * max(lengths) - starts_B
    rows_T = torch.arange(int(lengths_B.sum())) + shifts_B.repeat_interleave(lengths_B)
    return rows_T.to(device)


def _pad(x_TNH: Tensor, rows_T: Tensor, num_documents: int, length: int) -> Tensor:
    """Return tokens as [B, N, L, H], zero where there is none."""
    padded = x_TNH.new_zeros(num_documents * length, *x_TNH.shape[1:])
    padded = padded.index_copy(0, rows_T, x_TNH)
    return padded.unflatten(0, (num_documents, length)).transpose(1, 2)


def _ignores_distance(rule: ScoreRule) -> bool:
    extras = (rule.window, rule.slopes_N, rule.bias_NR)
    return not rule.causal and all(extra is None for extra in extras)
