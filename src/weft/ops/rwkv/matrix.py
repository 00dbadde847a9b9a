"""The recurrence of RWKV-5 and RWKV-6: linear attention that reads before it writes.

T tokens, B sequences, N heads, H key and value width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.dispatch import no_autocast
from weft.ops.linear_attention.reference import work_dtype
from weft.ops.recurrent import Lengths, Result, linear_attention, token_shift


def matrix_wkv(
    r_TNH: Tensor,
    k_TNH: Tensor,
    v_TNH: Tensor,
    log_decay_TNH: Tensor,
    bonus_NH: Tensor,
    lengths: Lengths,
    initial_BNHH: Tensor | None = None,
) -> Result:
    """Return ``(S_{t-1} + diag(bonus) k_t v_t^T)^T r_t`` and the final S.

    ``S_t = exp(log_decay_t) S_{t-1} + k_t v_t^T``, decays as in ``linear_attention``. That op reads
    S_t; so receptances go one token ahead into it and what they read comes one token back.

    Source: Peng et al. 2024, arXiv:2404.05892, section 4.
    """
    work, dtype = work_dtype(v_TNH), v_TNH.dtype
    r_TNH, k_TNH, v_TNH = (x.to(work) for x in (r_TNH, k_TNH, v_TNH))
    with no_autocast(r_TNH.device):
        # The last token of a sequence carries its neighbour's receptance; nobody reads the result.
        ahead_TNH = r_TNH.roll(-1, dims=0)
        read_TNH, final_BNHH = linear_attention(
            ahead_TNH, k_TNH, v_TNH, log_decay_TNH, lengths, initial_BNHH
        )
        past_TNH, _ = token_shift(read_TNH, lengths, _first_reads(r_TNH, lengths, initial_BNHH))
        overlap_TN1 = (r_TNH * bonus_NH.to(work) * k_TNH).sum(-1, keepdim=True)
        return (past_TNH + overlap_TN1 * v_TNH).to(dtype), final_BNHH


def _first_reads(r_TNH: Tensor, lengths: Lengths, initial_BNHH: Tensor | None) -> Tensor | None:
    """Return what the first tokens read of the states before them; none where there are none."""
    if initial_BNHH is None:
        return None
    lengths_B = torch.tensor(lengths, device=r_TNH.device)
    first_BNH = r_TNH.index_select(0, lengths_B.cumsum(0) - lengths_B).to(initial_BNHH.dtype)
    return (first_BNH[:, :, None] @ initial_BNHH).squeeze(2)
