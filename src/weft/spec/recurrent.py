"""Mixers with a state of constant size, described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from weft.core.errors import ConfigError
from weft.spec.cache import CacheKinds, StateSpec

FeatureMap = Literal["identity", "elu", "relu", "softmax"]


@dataclass(frozen=True)
class LinearAttentionSpec(CacheKinds):
    """Causal linear attention (Katharopoulos et al. 2020, arXiv:2006.16236), plain or gated.

    Attributes:
        num_heads: Heads (N).
        key_dim: Width of a query-key head.
        value_dim: Width of a value head.
        feature_map: phi in phi(q) (phi(k)^T v).
        normalise: Divide by phi(q) . sum phi(k), as the paper does.
        gate_rank: Rank of the data-dependent decay per key dimension (gated linear attention,
            arXiv:2312.06635); none means no decay.
        retention: Head n forgets at the fixed rate 1 - 2^(-5-n) (RetNet, arXiv:2307.08621).
        output_gate: Normalise each head and multiply it by the SiLU of the input (both papers).
    """

    num_heads: int
    key_dim: int
    value_dim: int
    feature_map: FeatureMap = "elu"
    normalise: bool = True
    gate_rank: int | None = None
    retention: bool = False
    output_gate: bool = False

    def __post_init__(self) -> None:
        if self.retention and self.gate_rank is not None:
            raise ConfigError(
                f"linear attention has fixed decays and a gate of rank {self.gate_rank}",
                fix="choose retention or gate_rank",
            )

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """The key-value matrix per head, with one more column for the normaliser."""
        columns = self.value_dim + (1 if self.normalise else 0)
        return {"matrix": StateSpec((self.num_heads, self.key_dim, columns), "float32")}


@dataclass(frozen=True)
class GatedDeltaNetSpec(CacheKinds):
    """Gated DeltaNet (Yang et al. 2024, arXiv:2412.06464), as in Qwen3-Next and Qwen3.5.

    Attributes:
        num_key_heads: Query and key heads; divides num_value_heads.
        num_value_heads: Value heads, each with its own state.
        key_dim: Width of a query or key head.
        value_dim: Width of a value head.
        conv_kernel: Taps of the short causal convolution over q, k and v.
    """

    num_key_heads: int
    num_value_heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int = 4

    def __post_init__(self) -> None:
        if self.num_value_heads % self.num_key_heads:
            raise ConfigError(
                f"{self.num_value_heads} value heads cannot share {self.num_key_heads} key heads",
                fix="make num_value_heads a multiple of num_key_heads",
            )

    @property
    def conv_dim(self) -> int:
        """Channels of the short convolution: queries, keys, values."""
        return 2 * self.num_key_heads * self.key_dim + self.num_value_heads * self.value_dim

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """The last inputs of the convolution and one matrix per value head."""
        matrix = (self.num_value_heads, self.key_dim, self.value_dim)
        return {
            "conv": StateSpec((self.conv_kernel - 1, self.conv_dim)),
            "matrix": StateSpec(matrix, "float32"),
        }


@dataclass(frozen=True)
class KimiDeltaSpec(CacheKinds):
    """Kimi Delta Attention (Kimi Linear, arXiv:2510.26692): a delta rule with per-channel decay.

    Attributes:
        num_heads: Heads (N).
        head_dim: Width of a query, key or value head.
        conv_kernel: Taps of the short causal convolutions over q, k and v.
        gate_rank: Inner width of the low-rank gates; none means head_dim.
    """

    num_heads: int
    head_dim: int
    conv_kernel: int = 4
    gate_rank: int | None = None

    @property
    def rank(self) -> int:
        """Inner width of the gates."""
        return self.head_dim if self.gate_rank is None else self.gate_rank

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """The last inputs of the three convolutions and one matrix per head."""
        channels = 3 * self.num_heads * self.head_dim
        return {
            "conv": StateSpec((self.conv_kernel - 1, channels)),
            "matrix": StateSpec((self.num_heads, self.head_dim, self.head_dim), "float32"),
        }


@dataclass(frozen=True)
class Mamba2Spec(CacheKinds):
    """Mamba-2, a selective state-space layer (Dao and Gu 2024, arXiv:2405.21060).

    Attributes:
        num_heads: Heads.
        head_dim: Channels per head.
        state_dim: Width of the state per channel.
        num_groups: Groups of heads that share B and C.
        conv_kernel: Taps of the short causal convolution.
        conv_bias: Whether it has a bias.
        bias: Whether the projections have a bias.
        norm_eps: Of the gated norm before the output projection.
        time_step_limit: Smallest and largest step size.
    """

    num_heads: int
    head_dim: int
    state_dim: int
    num_groups: int = 1
    conv_kernel: int = 4
    conv_bias: bool = True
    bias: bool = False
    norm_eps: float = 1e-5
    time_step_limit: tuple[float, float] = (0.0, float("inf"))

    @property
    def inner_dim(self) -> int:
        """Channels of all heads."""
        return self.num_heads * self.head_dim

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution: inputs, B and C."""
        return self.inner_dim + 2 * self.num_groups * self.state_dim

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """The last inputs of the convolution and the state of every channel."""
        matrix = (self.num_heads, self.state_dim, self.head_dim)
        return {
            "conv": StateSpec((self.conv_kernel - 1, self.conv_dim)),
            "matrix": StateSpec(matrix, "float32"),
        }


@dataclass(frozen=True)
class RWKVSpec(CacheKinds):
    """RWKV-4 time mixing (Peng et al. 2023, arXiv:2305.13048).

    Attributes:
        dim: Channels of the model, for the state of the token shift.
        attention_dim: Channels of the recurrence.
    """

    dim: int
    attention_dim: int

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """The previous token's input; numerator, denominator and exponent of the average."""
        return {
            "shift": StateSpec((self.dim,)),
            "average": StateSpec((3, self.attention_dim), "float32"),
        }


@dataclass(frozen=True)
class ShortConvSpec(CacheKinds):
    """A gated short convolution as mixer: C * conv(B * x) (LFM2, Hyena-like operators).

    Attributes:
        dim: Channels.
        kernel: Taps.
        bias: Whether projections and convolution have a bias.
    """

    dim: int
    kernel: int = 3
    bias: bool = False

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """The last inputs of the convolution."""
        return {"conv": StateSpec((self.kernel - 1, self.dim))}
