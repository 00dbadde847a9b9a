"""Linear attention by chunks: products inside, one state carried between them.

T tokens, B sequences, G query-key heads, N value heads, K key width, V value width, M chunks,
C tokens of a chunk. A decay per head has K = 1.

Yang et al. 2023 (arXiv:2312.06635); with a decay per head the state-space dual of Dao and Gu 2024
(arXiv:2405.21060).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from weft.ops.linear_attention.chunks import Chunks, chunk_size, cut
from weft.ops.linear_attention.decay import BLOCK, cumulative, decayed_scores, pairwise_decay
from weft.ops.linear_attention.reference import initial_states, work_dtype

CHUNK_SIZE = 64


def linear_attention(
    q_TGK: Tensor,
    k_TGK: Tensor,
    v_TNV: Tensor,
    log_decay_TNK: Tensor | None,
    lengths: tuple[int, ...],
    initial_BNKV: Tensor | None,
    size: int = CHUNK_SIZE,
) -> tuple[Tensor, Tensor]:
    """Compute what the reference computes."""
    chunks = cut(lengths, chunk_size(lengths, size, BLOCK), q_TGK.device)
    parts = split(chunks, q_TGK, k_TGK, v_TNV, log_decay_TNK)
    initial_BNKV = initial_states(initial_BNKV, lengths, k_TGK, v_TNV)
    written_MNKV = parts.keys_out().mT @ parts.v_MNCV
    total_MNK1 = parts.total()

    def advance(rows: slice, state_BNKV: Tensor) -> Tensor:
        if total_MNK1 is not None:
            state_BNKV = total_MNK1[rows] * state_BNKV
        return state_BNKV + written_MNKV[rows]

    starts_MNKV, final_BNKV = chunks.carry(initial_BNKV, advance)
    outputs_MNCV = parts.scores(parts.q_MGCK) @ parts.v_MNCV + parts.queries_in() @ starts_MNKV
    return chunks.join(outputs_MNCV, len(v_TNV)).to(v_TNV.dtype), final_BNKV


@dataclass(frozen=True)
class ChunkParts:
    """Queries, keys, values and decays of all chunks.

    Attributes:
        q_MGCK: Queries.
        k_MGCK: Keys.
        v_MNCV: Values.
        sums_MNCK: Logarithms of the decay since the chunk's start; none without decay.
    """

    q_MGCK: Tensor
    k_MGCK: Tensor
    v_MNCV: Tensor
    sums_MNCK: Tensor | None

    def heads(self, x_MGCK: Tensor) -> Tensor:
        """Repeat query-key heads for the value heads that share them."""
        repeats = self.v_MNCV.shape[1] // x_MGCK.shape[-3]
        return x_MGCK if repeats == 1 else x_MGCK.repeat_interleave(repeats, dim=-3)

    def scores(self, q_MGCK: Tensor) -> Tensor:
        """Return decayed products with all keys, lower triangular, [..., M, N, C, C].

        Several sets of queries may be stacked before the first axis.
        """
        sums = self.sums_MNCK
        if sums is None:
            return self.heads(decayed_scores(q_MGCK, self.k_MGCK, None))
        if sums.shape[-1] > 1 or q_MGCK.shape[-3] == sums.shape[1]:
            return decayed_scores(self.heads(q_MGCK), self.heads(self.k_MGCK), sums)
        # One product for all heads of a group; only the decay is their own.
        return self.heads(q_MGCK @ self.k_MGCK.mT) * pairwise_decay(sums, q_MGCK.dtype)

    def queries_in(self) -> Tensor:
        """Return queries as they meet the state before the chunk, [M, N, C, K]."""
        return self.since_start(self.heads(self.q_MGCK))

    def since_start(self, x_MNCK: Tensor) -> Tensor:
        """Apply the decay from the chunk's start up to each token."""
        sums = self.sums_MNCK
        return x_MNCK if sums is None else x_MNCK * sums.to(x_MNCK.dtype).exp()

    def keys_out(self) -> Tensor:
        """Return keys as they enter the state behind the chunk, [M, N, C, K]."""
        k_MNCK, sums = self.heads(self.k_MGCK), self.sums_MNCK
        if sums is None:
            return k_MNCK
        return k_MNCK * (sums[..., -1:, :] - sums).to(k_MNCK.dtype).exp()

    def total(self) -> Tensor | None:
        """Return the decay over the whole chunk, [M, N, K, 1]."""
        sums = self.sums_MNCK
        return None if sums is None else sums[..., -1, :, None].to(self.v_MNCV.dtype).exp()


def split(
    chunks: Chunks, q_TGK: Tensor, k_TGK: Tensor, v_TNV: Tensor, log_decay_TNK: Tensor | None
) -> ChunkParts:
    """Cut all inputs; a missing token changes nothing, as its key and log-decay are zero."""
    work = work_dtype(v_TNV)
    q_MGCK, k_MGCK, v_MNCV = (chunks.split(x.to(work)) for x in (q_TGK, k_TGK, v_TNV))
    sums = None if log_decay_TNK is None else cumulative(chunks.split(log_decay_TNK))
    return ChunkParts(q_MGCK, k_MGCK, v_MNCV, sums)
