"""The gated delta rule as its recurrence, token by token.

T tokens, B sequences, G query-key heads, N value heads, K key width, V value width. A decay per
head has K = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.linear_attention.reference import expand_heads, initial_states


def delta_rule(
    q_TGK: Tensor,
    k_TGK: Tensor,
    v_TNV: Tensor,
    beta_TN: Tensor,
    log_decay_TNK: Tensor | None,
    lengths: tuple[int, ...],
    initial_BNKV: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the outputs and the last state of each sequence."""
    q_TNK, k_TNK, v_work_TNV = expand_heads(q_TGK, k_TGK, v_TNV)
    states_B = initial_states(initial_BNKV, lengths, k_TNK, v_TNV)
    outputs, finals = [], []
    start = 0
    for state_NKV, length in zip(states_B, lengths, strict=True):
        for t in range(start, start + length):
            if log_decay_TNK is not None:
                state_NKV = state_NKV * log_decay_TNK[t, :, :, None].to(state_NKV.dtype).exp()
            known_NV = torch.einsum("nk,nkv->nv", k_TNK[t], state_NKV)
            new_NV = beta_TN[t, :, None].to(state_NKV.dtype) * (v_work_TNV[t] - known_NV)
            state_NKV = state_NKV + k_TNK[t, :, :, None] * new_NV[:, None, :]
            outputs.append(torch.einsum("nk,nkv->nv", q_TNK[t], state_NKV))
        finals.append(state_NKV)
        start += length
    return torch.stack(outputs).to(v_TNV.dtype), torch.stack(finals)
