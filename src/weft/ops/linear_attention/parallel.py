"""Linear attention as one masked product per sequence, quadratic in its length.

T tokens, B sequences, G query-key heads, N value heads, K key width, V value width.
A decay per head has K = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.linear_attention.decay import cumulative, decayed_scores
from weft.ops.linear_attention.reference import expand_heads


def linear_attention(
    q_TGK: Tensor,
    k_TGK: Tensor,
    v_TNV: Tensor,
    log_decay_TNK: Tensor | None,
    lengths: tuple[int, ...],
) -> Tensor:
    """Return ``(Q K^T * D) V`` with D the decay between two tokens, zero ahead of the diagonal."""
    tensors = [*expand_heads(q_TGK, k_TGK, v_TNV), log_decay_TNK]
    parts = [[None] * len(lengths) if t is None else t.split(lengths) for t in tensors]
    outputs = []
    for q, k, v, decay in zip(*parts, strict=True):
        q_NTK, k_NTK, v_NTV = (x.transpose(0, 1) for x in (q, k, v))
        sums = None if decay is None else cumulative(decay.transpose(0, 1))
        outputs.append((decayed_scores(q_NTK, k_NTK, sums) @ v_NTV).transpose(0, 1))
    return torch.cat(outputs).to(v_TNV.dtype)
