"""Feed-forward parts, described: dense, mixture of experts, RWKV's channel mixing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from weft.core.errors import ConfigError
from weft.spec.cache import CacheKinds, StateSpec

Activation = Literal[
    "silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "relu2", "leaky_relu", "elu", "selu",
    "mish", "tanh", "sigmoid", "clamped_swish",
]  # fmt: skip


@dataclass(frozen=True)
class MLPSpec(CacheKinds):
    """The dense feed-forward part.

    Attributes:
        hidden_dim: Inner width (F).
        activation: The non-linearity.
        gated: act(x W_gate) * (x W_up) as in SwiGLU (Shazeer 2020, arXiv:2002.05202).
        bias: Whether the projections have a bias.
    """

    hidden_dim: int
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        if self.hidden_dim < 1:
            raise ConfigError(f"the feed-forward width is {self.hidden_dim}; at least 1 is needed")


@dataclass(frozen=True)
class RouterSpec:
    """How tokens choose experts.

    Attributes:
        kind: "top_k" tokens choose experts; "expert_choice" experts choose tokens
            (arXiv:2202.09368); "soft" slots mix all tokens (arXiv:2308.00951); "gshard" top-2 with
            a random second (arXiv:2006.16668); "switch" top-1 (arXiv:2101.03961); "hash" a fixed
            table of token ids (arXiv:2106.04426).
        score: How router outputs become scores: over all experts ("softmax", "sigmoid",
            "sqrt_softplus") or over the chosen ones only ("softmax_chosen").
        normalise: Divide the chosen scores by their sum.
        weight_scale: Factor on the weights afterwards (DeepSeek-V3: 2.5).
        num_groups: Groups of experts for group-limited choice.
        num_kept_groups: Groups a token may use; num_groups means no limit.
        group_score: A group's rank is its "max" (DeepSeek-V2) or its "top2_sum" (V3).
        correction_bias: A bias per expert that steers the choice and not the weight; updated
            from the load, not by gradients (auxiliary-loss-free balancing, arXiv:2408.15664).
        bias: Whether the router's projection has a bias (gpt-oss).
        noise: Standard deviation of noise on the scores in training (noisy top-k).
        aux_loss: Weight of the load-balancing loss.
        z_loss: Weight of the router z-loss (arXiv:2202.08906).
    """

    kind: Literal["top_k", "expert_choice", "soft", "gshard", "switch", "hash"] = "top_k"
    score: Literal["softmax", "softmax_chosen", "sigmoid", "sqrt_softplus"] = "softmax"
    normalise: bool = True
    weight_scale: float = 1.0
    num_groups: int = 1
    num_kept_groups: int = 1
    group_score: Literal["max", "top2_sum"] = "max"
    correction_bias: bool = False
    bias: bool = False
    noise: float = 0.0
    aux_loss: float = 0.0
    z_loss: float = 0.0


@dataclass(frozen=True)
class MoESpec(CacheKinds):
    """A mixture of experts.

    Attributes:
        num_experts: Routed experts (E).
        top_k: Experts per token.
        expert: One expert.
        router: How tokens choose.
        shared: An expert every token uses (DeepSeekMoE, arXiv:2401.06066).
        shared_gate: Multiply the shared expert by a sigmoid of the token (Qwen3-Next).
        capacity_factor: Tokens an expert takes at most, as a multiple of the even load; none
            drops nothing.
        latent_dim: Width the experts work at, between projections down and up; none means D.
    """

    num_experts: int
    top_k: int
    expert: MLPSpec
    router: RouterSpec = field(default_factory=RouterSpec)
    shared: MLPSpec | None = None
    shared_gate: bool = False
    capacity_factor: float | None = None
    latent_dim: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise ConfigError(
                f"top_k is {self.top_k} of {self.num_experts} experts",
                fix="choose top_k between 1 and num_experts",
            )
        if self.num_experts % self.router.num_groups:
            raise ConfigError(
                f"{self.num_experts} experts do not split into {self.router.num_groups} groups"
            )


@dataclass(frozen=True)
class ChannelMixSpec(CacheKinds):
    """RWKV-4 channel mixing: a gated squared-ReLU part that also sees the previous token.

    Attributes:
        dim: Channels of the model.
        hidden_dim: Inner width.
    """

    dim: int
    hidden_dim: int

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """The previous token's input."""
        return {"shift": StateSpec((self.dim,))}
