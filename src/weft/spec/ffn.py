"""Feed-forward parts, described: dense, mixture of experts, RWKV's channel mixing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from weft.core.errors import ConfigError
from weft.spec.cache import CacheKinds, StateSpec

Activation = Literal[
    "silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "relu2", "leaky_relu", "elu", "selu",
    "mish", "tanh", "sigmoid", "clamped_swish", "situ",
]  # fmt: skip
GATED_ONLY = ("clamped_swish", "situ")
"""Activations that are functions of gate and up together."""


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
        if self.activation in GATED_ONLY and not self.gated:
            raise ConfigError(f"{self.activation} needs a gate", fix="set gated=True")


@dataclass(frozen=True)
class RouterSpec:
    """How tokens choose experts.

    Attributes:
        kind: "top_k" tokens choose experts; "expert_choice" experts choose tokens
            (arXiv:2202.09368); "soft" slots mix all tokens (arXiv:2308.00951); "gshard" top-2 with
            a random second (arXiv:2006.16668); "switch" top-1 (arXiv:2101.03961); "hash" a fixed
            function of the token id (arXiv:2106.04426).
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
        noise: Strength of the noise in training; 0 means none.
        noise_kind: "gaussian" added to the router's outputs with this deviation; "learnt" the same
            with a trained deviation per token and expert, times this (arXiv:1701.06538); "jitter"
            multiplies the router's input by 1 - noise to 1 + noise (arXiv:2101.03961).
        num_slots: Slots per expert of a soft mixture.
        aux_loss: Weight of the balancing loss.
        aux_kind: "load" (arXiv:2101.03961), "importance" (arXiv:1701.06538) or "sequence", the
            load loss within each sequence (arXiv:2412.19437).
        z_loss: Weight of the router z-loss (arXiv:2202.08906).
        bias_rate: Step of the correction bias per optimizer step (DeepSeek-V3: 0.001).
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
    noise_kind: Literal["gaussian", "learnt", "jitter"] = "gaussian"
    num_slots: int = 1
    aux_loss: float = 0.0
    aux_kind: Literal["load", "importance", "sequence"] = "load"
    z_loss: float = 0.0
    bias_rate: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.num_kept_groups <= self.num_groups:
            raise ConfigError(
                f"a token cannot use {self.num_kept_groups} of {self.num_groups} groups of experts",
                fix="choose num_kept_groups between 1 and num_groups",
            )
        if min(self.noise, self.aux_loss, self.z_loss, self.bias_rate) < 0 or self.num_slots < 1:
            raise ConfigError(
                f"noise, aux_loss, z_loss and bias_rate must be at least 0 and num_slots 1: {self}"
            )
        if self.bias_rate and not self.correction_bias:
            raise ConfigError(
                f"bias_rate is {self.bias_rate}, but the router has no correction bias",
                fix="set correction_bias=True",
            )

    @property
    def chosen_only(self) -> bool:
        """Whether scores exist for the chosen experts only."""
        return self.score == "softmax_chosen"


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
        if self.capacity_factor is not None and self.capacity_factor <= 0:
            raise ConfigError(
                f"capacity_factor is {self.capacity_factor}; it must be above 0 or none"
            )
        if self.shared_gate and self.shared is None:
            raise ConfigError("shared_gate needs a shared expert", fix="set shared")
        self._check_router()

    def _check_router(self) -> None:
        router = self.router
        if self.num_experts % router.num_groups:
            raise ConfigError(
                f"{self.num_experts} experts do not split into {router.num_groups} groups"
            )
        if self.num_experts // router.num_groups * router.num_kept_groups < self.top_k:
            raise ConfigError(
                f"{router.num_kept_groups} groups of {self.num_experts // router.num_groups} "
                f"experts hold fewer than the {self.top_k} a token uses",
                fix="raise num_kept_groups",
            )
        fixed = {"gshard": 2, "switch": 1}.get(router.kind, self.top_k)
        if self.top_k != fixed:
            raise ConfigError(
                f"{router.kind} routing uses {fixed} experts per token, not {self.top_k}",
                fix=f"set top_k={fixed}",
            )

    def capacity(self, num_tokens: int) -> int | None:
        """Return how many of ``num_tokens`` an expert takes at most; none means all.

        >>> MoESpec(8, 3, MLPSpec(4), capacity_factor=4 / 3).capacity(64)
        32
        """
        if self.capacity_factor is None:
            return None
        share = num_tokens * self.top_k / self.num_experts * self.capacity_factor
        return max(1, math.ceil(round(share, 6)))


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
