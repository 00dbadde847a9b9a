"""One token of each of many sequences, for linear attention and for the delta rule.

B sequences, G query-key heads, N value heads, K key width, V value width. A decay per head has
K = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.linear_attention.reference import expand_heads, initial_states


def linear_attention(
    q_BGK: Tensor,
    k_BGK: Tensor,
    v_BNV: Tensor,
    log_decay_BNK: Tensor | None,
    initial_BNKV: Tensor | None,
    beta_BN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the outputs and the states behind the token.

    With ``beta_BN`` the value written is the delta rule's: beta (v - k^T S), S already decayed.
    """
    q_BNK, k_BNK, new_BNV = expand_heads(q_BGK, k_BGK, v_BNV)
    state_BNKV = initial_states(initial_BNKV, (1,) * len(v_BNV), k_BNK, v_BNV)
    overlap_BN1 = (q_BNK * k_BNK).sum(-1, keepdim=True)
    if log_decay_BNK is not None:
        decay_BNK = log_decay_BNK.to(state_BNKV.dtype).exp()
        read_q_BNK, read_k_BNK = q_BNK * decay_BNK, k_BNK * decay_BNK
    else:
        decay_BNK, read_q_BNK, read_k_BNK = None, q_BNK, k_BNK
    # The old state is read once for both, and the new one not at all.
    if beta_BN is not None:
        reads = torch.stack([read_q_BNK, read_k_BNK], dim=2) @ state_BNKV
        read_BNV, known_BNV = reads.unbind(dim=2)
        new_BNV = beta_BN.to(state_BNKV.dtype)[..., None] * (new_BNV - known_BNV)
    else:
        read_BNV = (read_q_BNK[:, :, None] @ state_BNKV).squeeze(2)
    if decay_BNK is not None:
        state_BNKV = state_BNKV * decay_BNK[..., None]
    state_BNKV = torch.addcmul(state_BNKV, k_BNK[..., None], new_BNV[:, :, None])
    return (read_BNV + overlap_BN1 * new_BNV).to(v_BNV.dtype), state_BNKV
