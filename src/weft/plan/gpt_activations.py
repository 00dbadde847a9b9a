"""Activation memory of GPT training in closed form (Korthikanti et al. 2022, arXiv:2205.05198).

Bytes per layer of a GPT block with 16-bit activations and dropout masks, before fused attention:
``s·b·h·(34 + 5·a·s/h)`` (table 2). What holds for other blocks is counted tensor by tensor in
``weft.plan.ledger``; these forms are what that count is tested against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True)
class GPTBlock:
    """One block and how it is cut.

    Attributes:
        length: Tokens of a sequence (s).
        batch: Sequences of a micro batch (b).
        dim: Width (h).
        num_heads: Attention heads (a).
        tensor: Tensor-parallel size (t).
        sequence_parallel: Norms and dropouts are cut by t too.
    """

    length: int
    batch: int
    dim: int
    num_heads: int
    tensor: int = 1
    sequence_parallel: bool = False

    @property
    def _stream(self) -> float:
        return self.length * self.batch * self.dim

    @property
    def score_factor(self) -> float:
        """5as/h: scores, softmax and dropout, which fused attention does not keep."""
        return 5.0 * self.num_heads * self.length / self.dim

    def layer_bytes(self, recompute: Recompute = "none") -> float:
        """Return bytes one layer keeps for its backward pass.

        >>> block = GPTBlock(2048, 1, 12288, 96, tensor=8, sequence_parallel=True)
        >>> block.layer_bytes("selective")
        106954752.0
        """
        if recompute == "full":
            return 2.0 * self._stream
        scores = 0.0 if recompute == "selective" else self.score_factor
        shared = (24.0 + scores) / self.tensor
        return self._stream * ((10.0 / self.tensor if self.sequence_parallel else 10.0) + shared)

    def first_stage_bytes(
        self, num_layers: int, recompute: Recompute, *, num_ranks: int = 1, num_chunks: int = 1
    ) -> float:
        """Return bytes of a pipeline's first stage: all layers' worth, whatever its depth."""
        return num_layers * self.layer_bytes(recompute) * interleave_factor(num_ranks, num_chunks)

    def ends_bytes(self, vocab_size: int, num_ranks: int = 1) -> float:
        """Return bytes of embedding dropout, final norm and head: sbh/t·(p + 4(1 + V/h))."""
        ends = num_ranks + (4.0 * (1.0 + vocab_size / self.dim) if num_ranks == 1 else 0.0)
        return self._stream / self.tensor * ends

    @property
    def selective_flops_share(self) -> float:
        """Extra FLOPs of recomputing attention alone, s/6h (section 5)."""
        return self.length / (6.0 * self.dim)


def interleave_factor(num_ranks: int, num_chunks: int) -> float:
    """Return how much more an interleaved schedule holds, 1 + (p − 1)/(p·v).

    >>> round(interleave_factor(8, 3), 6)
    1.291667
    """
    if num_chunks == 1:
        return 1.0
    return 1.0 + (num_ranks - 1) / (num_ranks * num_chunks)
