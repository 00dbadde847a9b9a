"""Linear attention as its recurrence, token by token.

T tokens, B sequences, G query-key heads, N value heads, K key width, V value width.
A decay per head has K = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def linear_attention(
    q_TGK: Tensor,
    k_TGK: Tensor,
    v_TNV: Tensor,
    log_decay_TNK: Tensor | None,
    lengths: tuple[int, ...],
    initial_BNKV: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return ``S_t^T q_t`` for ``S_t = exp(log_decay_t) S_{t-1} + k_t v_t^T``, and the last S."""
    q_TNK, k_TNK, v_work_TNV = expand_heads(q_TGK, k_TGK, v_TNV)
    states_B = initial_states(initial_BNKV, lengths, k_TNK, v_TNV)
    outputs, finals = [], []
    start = 0
    for state_NKV, length in zip(states_B, lengths, strict=True):
        for t in range(start, start + length):
            if log_decay_TNK is not None:
                state_NKV = state_NKV * log_decay_TNK[t, :, :, None].to(state_NKV.dtype).exp()
            state_NKV = state_NKV + k_TNK[t, :, :, None] * v_work_TNV[t, :, None, :]
            outputs.append(torch.einsum("nk,nkv->nv", q_TNK[t], state_NKV))
        finals.append(state_NKV)
        start += length
    return torch.stack(outputs).to(v_TNV.dtype), torch.stack(finals)


def expand_heads(q_TGK: Tensor, k_TGK: Tensor, v_TNV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give every value head its queries and keys; all in the type of the arithmetic."""
    work = work_dtype(v_TNV)
    repeats = v_TNV.shape[1] // q_TGK.shape[1]
    q_TNK, k_TNK = (x.to(work).repeat_interleave(repeats, dim=1) for x in (q_TGK, k_TGK))
    return q_TNK, k_TNK, v_TNV.to(work)


def initial_states(
    initial_BNKV: Tensor | None, lengths: tuple[int, ...], k_TNK: Tensor, v_TNV: Tensor
) -> Tensor:
    """Return the states sequences start with: what is given, or zeros."""
    if initial_BNKV is not None:
        return initial_BNKV.to(work_dtype(v_TNV))
    shape = (len(lengths), v_TNV.shape[1], k_TNK.shape[-1], v_TNV.shape[-1])
    return v_TNV.new_zeros(shape, dtype=work_dtype(v_TNV))


def work_dtype(x: Tensor) -> torch.dtype:
    """Return the type sums are kept in: float32, or float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
