"""A small decoder counted by hand: parameters, forward FLOPs, activations (AIInfra, CODE01)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SmallDecoder:
    """A GPT-like decoder with a fourfold feed-forward part and no biases in matrices.

    Attributes:
        dim: Model width.
        num_layers: Blocks.
        num_heads: Attention heads.
        vocab_size: Rows of the embedding and of the untied head.
    """

    dim: int = 512
    num_layers: int = 8
    num_heads: int = 8
    vocab_size: int = 32_000

    @property
    def num_parameters(self) -> int:
        """Embedding, attention 4d², feed-forward 8d², two LayerNorms, untied head.

        The course forgets the final norm, so this does.

        >>> SmallDecoder().num_parameters
        57950208
        """
        block = 12 * self.dim**2 + 4 * self.dim
        return 2 * self.vocab_size * self.dim + self.num_layers * block

    def forward_flops(self, batch: int, length: int) -> int:
        """Count matrix products of a forward pass, every (query, key) pair included.

        >>> round(SmallDecoder().forward_flops(1, 1024) / 1e9, 2)
        102.27
        """
        tokens = batch * length
        block = 24 * tokens * self.dim**2 + 4 * tokens * length * self.dim
        return self.num_layers * block + 2 * tokens * self.dim * self.vocab_size

    def ffn_activation_bytes(self, batch: int, length: int, *, element_bytes: int = 4) -> int:
        """Return bytes of one feed-forward part's widest activation."""
        return batch * length * 4 * self.dim * element_bytes

    def score_bytes(self, batch: int, length: int, *, element_bytes: int = 4) -> int:
        """Return bytes of one layer's attention scores."""
        return batch * self.num_heads * length**2 * element_bytes

    def kv_bytes(self, batch: int, length: int, *, element_bytes: int = 2) -> int:
        """Return bytes of keys and values of all layers."""
        return self.num_layers * 2 * batch * length * self.dim * element_bytes


@dataclass(frozen=True)
class GroupedDecoder:
    """A Llama-like decoder without biases and norms; defaults are Qwen2.5-32B's.

    Attributes:
        dim: Model width.
        num_layers: Blocks.
        num_heads: Query heads.
        num_kv_heads: Key-value heads.
        head_dim: Width of a head.
        ffn_dim: Inner width of the gated feed-forward part.
        vocab_size: Rows of the embedding.
    """

    dim: int = 5120
    num_layers: int = 64
    num_heads: int = 40
    num_kv_heads: int = 8
    head_dim: int = 128
    ffn_dim: int = 27_648
    vocab_size: int = 152_064

    @property
    def block_parameters(self) -> int:
        """Parameters of all blocks."""
        attention = 2 * self.dim * self.head_dim * (self.num_heads + self.num_kv_heads)
        return self.num_layers * (attention + 3 * self.dim * self.ffn_dim)

    def num_parameters(self, *, strict: bool) -> int:
        """Return the course's count, which omits the untied head, or the one with it.

        >>> GroupedDecoder().num_parameters(strict=False)
        31984189440
        >>> GroupedDecoder().num_parameters(strict=True)
        32762757120
        """
        return self.block_parameters + self.dim * self.vocab_size * (2 if strict else 1)

    def prefill_flops(self, length: int) -> int:
        """Count a prefill without the head, every pair included."""
        return length * (2 * self.block_parameters + self._pair_flops * length)

    def mean_decode_flops(self, num_prompt: int, num_output: int) -> float:
        """Return the mean FLOPs of a generated token, without the head."""
        mean_context = num_prompt + (num_output + 1) / 2
        return 2 * self.block_parameters + self._pair_flops * mean_context

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes per token in two-byte elements."""
        return 4 * self.num_layers * self.num_kv_heads * self.head_dim

    @property
    def _pair_flops(self) -> int:
        return 4 * self.num_layers * self.num_heads * self.head_dim


def toy_moe_parameters(num_experts: int, inputs: int, hidden: int, outputs: int) -> int:
    """Count experts of two biased layers and a biased gate.

    >>> toy_moe_parameters(4, 10, 64, 5)
    4160
    """
    expert = inputs * hidden + hidden + hidden * outputs + outputs
    return num_experts * expert + inputs * num_experts + num_experts


def mixture_total(num_experts: int, expert_parameters: int, shared_parameters: int) -> int:
    """Return what must be stored, whatever one token uses.

    >>> mixture_total(8, 10_000_000, 1_000_000)
    81000000
    """
    return num_experts * expert_parameters + shared_parameters
