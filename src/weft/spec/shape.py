"""``ModelShape``: the few numbers a person chooses; ``build`` fills in the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weft.core.errors import ConfigError
from weft.spec.attention import AttentionSpec
from weft.spec.ffn import MLPSpec
from weft.spec.model import LayerSpec, ModelSpec, NormSpec
from weft.spec.rotary import RotarySpec


@dataclass(frozen=True)
class ModelShape:
    """The shape of a dense decoder to train from scratch.

    Attributes:
        family: Hugging Face family of the checkpoint: llama, or qwen3 (adds QK-norm).
        dim: Width of the residual stream.
        num_layers: Number of blocks.
        num_heads: Query heads.
        num_kv_heads: Key-value heads; fewer than num_heads is grouped-query attention.
        head_dim: Width of a head; none means dim / num_heads.
        ffn_dim: Inner width of SwiGLU; none means 8/3 dim, rounded up to a multiple of 64.
        context_length: Longest sequence.
        rope_theta: Rotary base.
        norm_eps: Added to the mean square in RMSNorm.
        tie_embeddings: Use the embedding as output projection.
    """

    family: Literal["llama", "qwen3"] = "llama"
    dim: int = 256
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int | None = None
    ffn_dim: int | None = None
    context_length: int = 512
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True

    def build(
        self,
        vocab_size: int,
        *,
        bos_id: int | None = None,
        eos_ids: tuple[int, ...] = (),
        pad_id: int | None = None,
    ) -> ModelSpec:
        """Return the full specification for a vocabulary.

        Raises:
            ConfigError: dim is not a multiple of num_heads and head_dim is not given.
        """
        if self.num_layers < 1:
            raise ConfigError(f"num_layers is {self.num_layers}; it must be at least 1")
        if self.head_dim is None and self.dim % self.num_heads:
            raise ConfigError(
                f"dim {self.dim} is not a multiple of num_heads {self.num_heads}",
                fix="change one of them or give head_dim",
            )
        attention = AttentionSpec(
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim or self.dim // self.num_heads,
            rotary=RotarySpec(theta=self.rope_theta),
            qk_norm="head" if self.family == "qwen3" else "none",
        )
        ffn_dim = self.ffn_dim or -(-8 * self.dim // 3 // 64) * 64
        return ModelSpec(
            family=self.family,
            vocab_size=vocab_size,
            dim=self.dim,
            layers=(LayerSpec(attention, MLPSpec(ffn_dim)),) * self.num_layers,
            norm=NormSpec(eps=self.norm_eps),
            tie_embeddings=self.tie_embeddings,
            context_length=self.context_length,
            bos_id=bos_id,
            eos_ids=eos_ids,
            pad_id=pad_id,
        )
