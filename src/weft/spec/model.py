"""``ModelSpec``: what a decoder is, layer by layer, without a tensor in sight.

A layer is a mixer (moves information between positions) and a feed-forward part (works on
each position alone). New architectures add a spec class to the ``MixerSpec`` or ``FFNSpec``
union; nothing else in this file changes. Rotary parameters belong to the attention, not to
the model, because several families (Gemma 3, SmolLM3) change them from layer to layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from weft.core.errors import ConfigError

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are stretched beyond the trained length.

    Attributes:
        kind: The rule; "llama3" smooths between kept and divided frequencies.
        factor: How much longer the new context is.
        low_freq_factor: Wavelengths above original_context / this are divided by factor (llama3).
        high_freq_factor: Wavelengths below original_context / this are kept (llama3).
        original_context: The length the model was first trained with.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True)
class RotarySpec:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864).

    Attributes:
        theta: The base of the geometric series of wavelengths.
        dim: How many of a head's dimensions rotate; none means all of them.
        layout: "half" pairs dimension i with i + dim/2 (Llama on Hugging Face), "interleaved"
            pairs 2i with 2i + 1 (the paper).
        scaling: Stretching beyond the trained length.
    """

    theta: float = 10_000.0
    dim: int | None = None
    layout: Literal["half", "interleaved"] = "half"
    scaling: RotaryScaling | None = None


@dataclass(frozen=True)
class AttentionSpec:
    """Softmax attention: multi-head, multi-query or grouped-query.

    Attributes:
        num_heads: Query heads (N).
        num_kv_heads: Key and value heads (K); divides num_heads.
        head_dim: Width of one head (H).
        rotary: Rotary positions, or none.
        qkv_bias: Whether the query, key and value projections have a bias.
        out_bias: Whether the output projection has a bias.
        qk_norm: RMS-normalise each query and key head before the rotation (Qwen3).
        window: A token sees this many positions including itself; none means all.
        scale: Factor on the scores; none means head_dim ** -0.5.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary: RotarySpec | None = field(default_factory=RotarySpec)
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    window: int | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        if min(self.num_heads, self.num_kv_heads, self.head_dim) < 1:
            raise ConfigError(f"attention sizes must be at least 1: {self}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} key-value heads",
                fix="make num_heads a multiple of num_kv_heads",
            )
        if self.rotary is not None and self.rotary_dim % 2:
            raise ConfigError(
                f"rotary positions need an even width, not {self.rotary_dim}",
                fix="choose an even head_dim",
            )
        if self.window is not None and self.window < 1:
            raise ConfigError(f"window is {self.window}; it must be at least 1 or none")

    @property
    def query_dim(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key heads together (the value heads have the same)."""
        return self.num_kv_heads * self.head_dim

    @property
    def rotary_dim(self) -> int:
        """How many dimensions of a head rotate."""
        if self.rotary is None:
            return 0
        return self.head_dim if self.rotary.dim is None else self.rotary.dim

    @property
    def softmax_scale(self) -> float:
        """The factor on query-key products."""
        return self.head_dim**-0.5 if self.scale is None else self.scale

    @property
    def cache_values_per_token(self) -> int:
        """How many numbers the engine keeps per token and layer."""
        return 2 * self.kv_dim


@dataclass(frozen=True)
class MLPSpec:
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
class NormSpec:
    """RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467).

    Attributes:
        eps: Added to the mean square.
    """

    eps: float = 1e-6


MixerSpec = AttentionSpec
FFNSpec = MLPSpec


@dataclass(frozen=True)
class LayerSpec:
    """One block: x + mixer(norm(x)), then x + ffn(norm(x))."""

    mixer: MixerSpec
    ffn: FFNSpec


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only language model.

    Attributes:
        family: Name of the family whose Hugging Face layout it has, such as "llama".
        vocab_size: Rows of the embedding (V).
        dim: Width of the residual stream (D).
        layers: One entry per block.
        norm: The normalisation of every block and of the output.
        tie_embeddings: The output projection is the embedding.
        context_length: The longest sequence the model is meant for.
        bos_id: Begin-of-text token.
        eos_ids: Tokens that end a generation.
        pad_id: Padding token; never computed here, only written to config.json.
    """

    family: str
    vocab_size: int
    dim: int
    layers: tuple[LayerSpec, ...]
    norm: NormSpec = field(default_factory=NormSpec)
    tie_embeddings: bool = False
    context_length: int = 2048
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.dim, self.context_length) < 1 or not self.layers:
            raise ConfigError(
                f"a model needs a vocabulary, a width, a context and layers; got "
                f"vocab_size={self.vocab_size}, dim={self.dim}, "
                f"context_length={self.context_length}, {len(self.layers)} layers"
            )

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def cache_values_per_token(self) -> int:
        """How many numbers the engine keeps per token over all layers."""
        return sum(layer.mixer.cache_values_per_token for layer in self.layers)
