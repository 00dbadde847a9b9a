"""Four MFU calculators for one configuration (mfu_calculation, InfraTech).

All share a causal factor (c + 1) / 2c with c = 1, that is 1: every pair is counted. The "detail"
forms add masks, softmax, norms and the router, and use query widths in places of hidden ones.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MFUExample:
    """The configuration all four share.

    Attributes:
        batch: Sequences per step.
        length: Tokens per sequence.
        dim: Hidden width, also heads times head width.
        num_heads: Query heads.
        head_dim: Width of a head.
        num_kv_heads: Key-value heads.
        ffn_dim: Inner width of an expert.
        vocab_size: Rows of the head.
        num_layers: Blocks.
        top_k: Routed experts per token.
        num_shared: Experts every token uses.
        num_experts: All routed experts; only the detailed router counts them.
        num_devices: Devices.
        peak_tflops: Of one device, in 10¹² FLOP/s.
    """

    batch: int = 1024
    length: int = 4096
    dim: int = 1024
    num_heads: int = 8
    head_dim: int = 128
    num_kv_heads: int = 4
    ffn_dim: int = 2048
    vocab_size: int = 32_768
    num_layers: int = 100
    top_k: int = 8
    num_shared: int = 1
    num_experts: int = 100
    num_devices: int = 1024
    peak_tflops: float = 280.0

    def mfu(self, flops: float, step_s: float) -> float:
        """Return model FLOPs over peak."""
        return flops / (self.num_devices * step_s * 1e12) / self.peak_tflops

    def grouped(self, step_s: float) -> float:
        """Return MFU with grouped-query attention.

        >>> MFUExample().grouped(1.5)
        0.4007877972553143
        """
        kv = 2 * 2 * self._tokens * self.dim * self.num_kv_heads * self.head_dim
        attention = 4 * self._tokens * self.dim**2 + kv + self._pair_flops
        return self.mfu(self._brief(attention), step_s)

    def latent(self, step_s: float, *, query_rank: int = 256, kv_rank: int = 128) -> float:
        """Return MFU with latent attention.

        >>> MFUExample().latent(1.5)
        0.3938851712438857
        """
        attention = 2 * self._tokens * self._latent_widths(query_rank, kv_rank) + self._pair_flops
        return self.mfu(self._brief(attention + 2 * self._tokens * self.dim**2), step_s)

    def grouped_detail(self, step_s: float) -> float:
        """Return MFU with every small operation counted; nine experts routed, none shared.

        >>> MFUExample().grouped_detail(1.5)
        0.4019112012361143
        """
        kv_dim = self.num_kv_heads * self.head_dim
        attention = 4 * self._tokens * (self.dim**2 + self.dim * kv_dim)
        return self.mfu(self._detailed(attention), step_s)

    def latent_detail(self, step_s: float, *, query_rank: int = 128, kv_rank: int = 256) -> float:
        """Return MFU with latent attention and every small operation counted.

        >>> round(MFUExample().latent_detail(1.5), 13)
        0.3957755336704
        """
        widths = self._latent_widths(query_rank, kv_rank) + self.dim**2
        return self.mfu(self._detailed(2 * self._tokens * widths), step_s)

    @property
    def _tokens(self) -> int:
        return self.batch * self.length

    @property
    def _pair_flops(self) -> int:
        return 4 * self._tokens * self.length * self.num_heads * self.head_dim

    def _latent_widths(self, query_rank: int, kv_rank: int) -> int:
        heads = self.num_heads * self.head_dim
        return query_rank * (self.dim + heads) + kv_rank * (self.dim + 2 * heads)

    def _brief(self, attention: int) -> int:
        ffn = 6 * self._tokens * self.dim * self.ffn_dim * (self.num_shared + self.top_k)
        norm = 2 * self._tokens * self.dim
        head = 2 * self._tokens * self.dim * self.vocab_size
        return 3 * (head + self.num_layers * (attention + ffn + norm))

    def _detailed(self, projections: int) -> float:
        tokens, scores = self._tokens, self.batch * self.num_heads * self.length
        softmax_and_mask = scores * self.length + 3 * scores * (self.length - 1)
        attention = projections + self._pair_flops + softmax_and_mask
        expert = 6 * tokens * self.dim * self.ffn_dim + 2 * tokens * self.ffn_dim
        norms = 2 * 6 * tokens * self.dim
        router = 2 * tokens * self.dim * self.num_experts
        used = self.num_shared + self.top_k
        head = 4 * tokens * self.dim + 2 * tokens * self.dim * self.vocab_size
        head += 3 * tokens * (self.vocab_size - 1)
        return 3 * (head + self.num_layers * (norms + attention + expert * used + router))
