"""The gated delta rule by chunks.

T tokens, B sequences, G query-key heads, N value heads, K key width, V value width, M chunks,
C tokens of a chunk. A decay per head has K = 1.

Inside a chunk every corrected value depends on those before it: (I + L) U = beta (V - K S) with L
the decayed products of keys below the diagonal. Solving the triangular system for the parts with
and without S (the WY representation of Bischof and Van Loan 1987, as in Yang et al. 2024,
arXiv:2406.06484 and arXiv:2412.06464) leaves matrix products and one state per chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.linear_attention.chunks import chunk_size, cut
from weft.ops.linear_attention.chunkwise import split
from weft.ops.linear_attention.decay import BLOCK
from weft.ops.linear_attention.reference import initial_states

# Shorter than for plain linear attention: the triangular solve grows with it.
CHUNK_SIZE = 32


def delta_rule(
    q_TGK: Tensor,
    k_TGK: Tensor,
    v_TNV: Tensor,
    beta_TN: Tensor,
    log_decay_TNK: Tensor | None,
    lengths: tuple[int, ...],
    initial_BNKV: Tensor | None,
    size: int = CHUNK_SIZE,
) -> tuple[Tensor, Tensor]:
    """Compute what the reference computes."""
    chunks = cut(lengths, chunk_size(lengths, size, BLOCK), q_TGK.device)
    parts = split(chunks, q_TGK, k_TGK, v_TNV, log_decay_TNK)
    beta_MNC1 = chunks.split(beta_TN[..., None].to(parts.v_MNCV.dtype))
    overlap_MNCC, scores_MNCC = parts.scores(torch.stack([parts.k_MGCK, parts.q_MGCK]))
    # The matrix's diagonal counts as ones and what is above it is not read.
    system_MNCC = beta_MNC1 * overlap_MNCC
    keys_MNCK = parts.since_start(parts.heads(parts.k_MGCK))
    sides = beta_MNC1 * torch.cat([parts.v_MNCV, keys_MNCK], dim=-1)
    solved = torch.linalg.solve_triangular(system_MNCC, sides, upper=False, unitriangular=True)
    values_MNCV, reads_MNCK = solved.split((v_TNV.shape[-1], k_TGK.shape[-1]), dim=-1)
    keys_MNKC, total_MNK1 = parts.keys_out().mT, parts.total()
    corrected = []

    def advance(rows: slice, state_BNKV: Tensor) -> Tensor:
        corrected.append(values_MNCV[rows] - reads_MNCK[rows] @ state_BNKV)
        if total_MNK1 is not None:
            state_BNKV = total_MNK1[rows] * state_BNKV
        return state_BNKV + keys_MNKC[rows] @ corrected[-1]

    initial_BNKV = initial_states(initial_BNKV, lengths, k_TGK, v_TNV)
    starts_MNKV, final_BNKV = chunks.carry(initial_BNKV, advance)
    outputs_MNCV = scores_MNCC @ torch.cat(corrected)
    outputs_MNCV = outputs_MNCV + parts.queries_in() @ starts_MNKV
    return chunks.join(outputs_MNCV, len(v_TNV)).to(v_TNV.dtype), final_BNKV
