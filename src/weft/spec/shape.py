"""``ModelShape``: the few numbers a person chooses; ``build`` fills in the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from weft.core.errors import ConfigError
from weft.spec.attention import AttentionSpec
from weft.spec.ffn import MLPSpec, MoESpec, RouterSpec
from weft.spec.model import LayerSpec, ModelSpec, NormSpec
from weft.spec.rotary import RotarySpec

Family = Literal["llama", "qwen3", "mixtral", "qwen3_moe", "glm4_moe"]
EXPERT_FAMILIES = ("mixtral", "qwen3_moe", "glm4_moe")
# Weight of the balancing loss: alone (Switch, GLaM), and beside a correction bias (DeepSeek-V3).
AUX_LOSS, SEQUENCE_AUX_LOSS = 0.01, 0.0001


@dataclass(frozen=True)
class ExpertShape:
    """The mixture of experts of a model to train from scratch.

    Attributes:
        num_experts: Routed experts; 0 makes the model dense.
        top_k: Experts per token.
        expert_dim: Inner width of an expert; none divides the dense width among those a token uses,
            so that as many parameters are active as in the dense model.
        shared_dim: Inner width of an expert that all tokens use (glm4_moe); 0 means none.
        aux_loss: Weight of the balancing loss; none means 0.01, or 0.0001 beside a bias (glm4_moe).
        z_loss: Weight of the router z-loss.
        bias_rate: Step of the bias that balances the load (glm4_moe).
    """

    num_experts: int = 0
    top_k: int = 2
    expert_dim: int | None = None
    shared_dim: int = 0
    aux_loss: float | None = None
    z_loss: float = 0.001
    bias_rate: float = 0.001

    def build(self, ffn_dim: int, *, biased: bool) -> MoESpec:
        """Return the mixture in place of a dense part of width ``ffn_dim``.

        ``biased`` routers score with sigmoids and have a correction bias.
        """
        router = RouterSpec(
            score="sigmoid" if biased else "softmax",
            group_score="top2_sum" if biased else "max",
            correction_bias=biased,
            bias_rate=self.bias_rate if biased else 0.0,
            aux_kind="sequence" if biased else "load",
            aux_loss=(SEQUENCE_AUX_LOSS if biased else AUX_LOSS)
            if self.aux_loss is None
            else self.aux_loss,
            z_loss=self.z_loss,
        )
        width = self.expert_dim or (ffn_dim - self.shared_dim) // self.top_k
        shared = MLPSpec(self.shared_dim) if self.shared_dim else None
        return MoESpec(self.num_experts, self.top_k, MLPSpec(width), router, shared)


@dataclass(frozen=True)
class ModelShape:
    """The shape of a decoder to train from scratch.

    Attributes:
        family: Hugging Face family of the checkpoint: llama, or qwen3 (adds QK-norm); with experts
            mixtral, qwen3_moe, or glm4_moe (balanced by a bias, may share an expert).
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
        experts: The mixture of experts of every layer.
    """

    family: Family = "llama"
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
    experts: ExpertShape = field(default_factory=ExpertShape)

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
            ConfigError: dim is not a multiple of num_heads and head_dim is not given, or family
                and experts do not belong together.
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
            rotary=RotarySpec(theta=self.rope_theta, dim=self._rotary_dim),
            qk_norm="none" if self.family in ("llama", "mixtral") else "head",
        )
        return ModelSpec(
            family=self.family,
            vocab_size=vocab_size,
            dim=self.dim,
            layers=(LayerSpec(attention, self._ffn()),) * self.num_layers,
            norm=NormSpec(eps=self.norm_eps),
            tie_embeddings=self.tie_embeddings,
            context_length=self.context_length,
            bos_id=bos_id,
            eos_ids=eos_ids,
            pad_id=pad_id,
        )

    @property
    def _rotary_dim(self) -> int | None:
        """GLM-4.5 turns half of each head."""
        head_dim = self.head_dim or self.dim // self.num_heads
        return head_dim // 2 if self.family == "glm4_moe" else None

    def _ffn(self) -> MLPSpec | MoESpec:
        ffn_dim = self.ffn_dim or -(-8 * self.dim // 3 // 64) * 64
        sparse = self.family in EXPERT_FAMILIES
        if sparse != (self.experts.num_experts > 0):
            raise ConfigError(
                f"family {self.family} with {self.experts.num_experts} experts",
                fix=f"set experts.num_experts with {', '.join(EXPERT_FAMILIES)}, and only there",
            )
        if not sparse:
            return MLPSpec(ffn_dim)
        return self.experts.build(ffn_dim, biased=self.family == "glm4_moe")
