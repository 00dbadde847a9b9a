"""Scores and top-k selection of DeepSeek Sparse Attention.

T queries, the last of S positions; I index heads, J index head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.nn.latent.tokens import IndexTokens
from weft.ops.attention.rule import distances

# Products of queries, heads and positions held at once: 64 MiB of float32.
MAX_PRODUCTS = 2**24


@torch.no_grad()
def select(index: IndexTokens, keys_SJ: Tensor, top_k: int) -> Tensor:
    """Return which positions each query attends to, [T, S], bool: at most ``top_k``, none ahead."""
    num_queries, num_keys = index.q_TIJ.shape[0], keys_SJ.shape[0]
    visible_TS = distances(num_queries, num_keys, keys_SJ.device) <= 0
    if num_keys <= top_k:
        return visible_TS
    return top_positions(index_scores(index, keys_SJ), visible_TS, top_k)


def index_scores(index: IndexTokens, keys_SJ: Tensor) -> Tensor:
    """Return ``sum_i w_i relu(q_i . k)``, [T, S], float32."""
    num_heads = index.weights_TI.shape[1]
    keys_JS = keys_SJ.float().T
    size = max(1, MAX_PRODUCTS // (num_heads * keys_JS.shape[1]))
    blocks = []
    for q_tIJ, weights_tI in zip(
        index.q_TIJ.float().split(size), index.weights_TI.split(size), strict=True
    ):
        products_tIS = (q_tIJ @ keys_JS).relu_()
        blocks.append((weights_tI.unsqueeze(1) @ products_tIS).squeeze(1))
    return torch.cat(blocks)


def top_positions(scores_TS: Tensor, visible_TS: Tensor, top_k: int) -> Tensor:
    """Mark the ``top_k`` visible positions with the largest scores; the earlier of equals wins.

    >>> scores = torch.tensor([[0.5, 2.0, 0.5, 9.0]])
    >>> top_positions(scores, torch.tensor([[True, True, True, False]]), 2).tolist()
    [[True, True, False, False]]
    """
    scores_TS = scores_TS.masked_fill(~visible_TS, float("-inf"))
    least_T1 = scores_TS.topk(min(top_k, scores_TS.shape[1]), dim=-1).values[:, -1:]
    above_TS = scores_TS > least_T1
    equal_TS = (scores_TS == least_T1) & visible_TS
    room_T1 = top_k - above_TS.sum(-1, keepdim=True)
    return above_TS | (equal_TS & (equal_TS.cumsum(-1) <= room_T1))
