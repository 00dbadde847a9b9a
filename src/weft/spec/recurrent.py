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
        retention: Head n keeps the fixed share 1 - 2^(-5-n) per token (RetNet, arXiv:2307.08621).
        lightning: Head n keeps exp(-lightning 2^(-8 (n + 1) / N)) per token (Lightning
            Attention-2, arXiv:2401.04658); MiniMax-01 lowers the factor from 1 in its first layer
            to 0 in its last.
        output_gate: Normalise each head and multiply it by the SiLU of the input (both papers).
    """

    num_heads: int
    key_dim: int
    value_dim: int
    feature_map: FeatureMap = "elu"
    normalise: bool = True
    gate_rank: int | None = None
    retention: bool = False
    lightning: float | None = None
    output_gate: bool = False

    def __post_init__(self) -> None:
        chosen = [self.gate_rank is not None, self.retention, self.lightning is not None]
        if sum(chosen) > 1:
            raise ConfigError(
                f"linear attention has several decays: gate_rank={self.gate_rank}, "
                f"retention={self.retention}, lightning={self.lightning}",
                fix="choose one of them",
            )
        if self.lightning is not None and self.lightning < 0:
            raise ConfigError(f"lightning is {self.lightning}; a decay's factor is at least 0")

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
class MambaSpec(CacheKinds):
    """Mamba, a selective state-space layer (Gu and Dao 2023, arXiv:2312.00752).

    Attributes:
        inner_dim: Channels, each with a state of its own.
        step_rank: Inner width of the projection to step sizes.
        state_dim: Width of the state per channel.
        conv_kernel: Taps of the short causal convolution.
        conv_bias: Whether it has a bias.
        bias: Whether the projections into and out of the layer have a bias.
        inner_norm_eps: Normalise steps, B and C to unit root mean square (Falcon-Mamba,
            arXiv:2410.05355), with this added; none leaves them.
    """

    inner_dim: int
    step_rank: int
    state_dim: int = 16
    conv_kernel: int = 4
    conv_bias: bool = True
    bias: bool = False
    inner_norm_eps: float | None = None

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """The last inputs of the convolution and the state of every channel."""
        return {
            "conv": StateSpec((self.conv_kernel - 1, self.inner_dim)),
            "matrix": StateSpec((self.inner_dim, self.state_dim), "float32"),
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
class MatrixRWKVSpec(CacheKinds):
    """Time mixing of RWKV-5 and RWKV-6 (Peng et al. 2024, arXiv:2404.05892): a matrix per head.

    Without ranks it is RWKV-5 (Eagle), whose decays and shares of the previous token are fixed per
    channel; with them RWKV-6 (Finch), where both depend on the token through low-rank maps.

    Attributes:
        dim: Channels of the model, for the state of the token shift.
        num_heads: Heads (N).
        head_dim: Width of a head (H).
        shift_rank: Inner width of the map to the five shares.
        decay_rank: Inner width of the map to the decay.
        norm_eps: Of the norm of each head.
    """

    dim: int
    num_heads: int
    head_dim: int
    shift_rank: int | None = None
    decay_rank: int | None = None
    norm_eps: float = 64e-5

    def __post_init__(self) -> None:
        if (self.shift_rank is None) != (self.decay_rank is None):
            raise ConfigError(
                f"RWKV has shift_rank={self.shift_rank} and decay_rank={self.decay_rank}",
                fix="give both (RWKV-6) or none (RWKV-5)",
            )

    @property
    def inner_dim(self) -> int:
        """Channels of all heads."""
        return self.num_heads * self.head_dim

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """The previous token's input and one matrix per head."""
        return {
            "shift": StateSpec((self.dim,)),
            "matrix": StateSpec((self.num_heads, self.head_dim, self.head_dim), "float32"),
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
