"""Numbers per token that a backward pass keeps of each mixer and feed-forward part.

Exact for softmax attention and the dense feed-forward part where fused kernels compute them. Latent
attention and recurrences run as plain formulas, whose graph keeps several times the tensors that
are listed: ``PLAIN_FORMULAS`` is the measured factor, right to 40 %. T is left out: everything
is per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

from weft.spec import (
    AttentionSpec,
    ChannelMixSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    MLASpec,
    MLPSpec,
    MoESpec,
    RWKVSpec,
    ShortConvSpec,
)

# Chunked recurrences keep the state at the head of every chunk of this many tokens.
CHUNK = 64
# Kept by autograd over tensors listed, at width 256 and 512 tokens: latent 3.0, Mamba-2 3.2, gated
# delta net 3.4, Kimi delta 3.8, gated linear 4.0, RWKV 4.2.
PLAIN_FORMULAS = 3.5


@dataclass(frozen=True)
class Kept:
    """Numbers kept per token.

    Attributes:
        model: In the type of matrix products.
        float32: In float32 whatever that is.
    """

    model: int
    float32: int = 0

    def times(self, factor: float) -> Kept:
        """Return a multiple, rounded down."""
        return Kept(int(self.model * factor), int(self.float32 * factor))

    def __add__(self, other: Kept) -> Kept:
        return Kept(self.model + other.model, self.float32 + other.float32)


def rotary_width(mixer: object) -> int:
    """Return how many dimensions of a head rotate; 0 where none do."""
    if isinstance(mixer, AttentionSpec):
        return mixer.rotary_dim
    return mixer.rope_head_dim if isinstance(mixer, MLASpec) and mixer.rotary is not None else 0


@singledispatch
def mixer_activations(mixer: object, dim: int) -> Kept:
    """Count what one mixer keeps, its own input left out."""
    raise TypeError(f"no activations are known for {type(mixer).__name__}")


@mixer_activations.register
def _(mixer: AttentionSpec, dim: int) -> Kept:
    # Queries, keys, values; queries and keys again once rotated; the output; its log-sum-exp.
    rotated = mixer.query_dim + mixer.kv_dim if mixer.rotary is not None else 0
    gate = 2 * mixer.query_dim if mixer.output_gate else 0
    return Kept(2 * mixer.query_dim + 2 * mixer.kv_dim + rotated + gate, mixer.num_heads)


@mixer_activations.register
def _(mixer: MLASpec, dim: int) -> Kept:
    queries, values = (mixer.num_heads * n for n in (mixer.head_dim, mixer.value_head_dim))
    latents = 2 * sum(mixer.down_rows)  # before and after their norms
    index = 0
    if mixer.indexer is not None:
        index = (mixer.indexer.num_heads + 1) * (mixer.indexer.head_dim + 1)
    gate = 2 * values if mixer.output_gate else 0
    return Kept(latents + 3 * queries + 2 * values + index + gate, mixer.num_heads).times(
        PLAIN_FORMULAS
    )


@mixer_activations.register
def _(mixer: LinearAttentionSpec, dim: int) -> Kept:
    keys, values = mixer.num_heads * mixer.key_dim, mixer.num_heads * mixer.value_dim
    gate = 0 if mixer.gate_rank is None else 2 * keys + mixer.gate_rank
    gate += 2 * values if mixer.output_gate else 0
    return Kept(4 * keys + 2 * values + gate, mixer.state_values // CHUNK).times(PLAIN_FORMULAS)


@mixer_activations.register
def _(mixer: GatedDeltaNetSpec, dim: int) -> Kept:
    values = mixer.num_value_heads * mixer.value_dim
    # The convolution's input and output, normalised keys and queries, output, gate, their product.
    kept = 3 * mixer.conv_dim + 3 * values
    return Kept(kept, 2 * mixer.num_value_heads + _states(mixer) // CHUNK).times(PLAIN_FORMULAS)


@mixer_activations.register
def _(mixer: KimiDeltaSpec, dim: int) -> Kept:
    inner = mixer.num_heads * mixer.head_dim
    ranks = 2 * (mixer.gate_rank or mixer.head_dim)
    return Kept(12 * inner + ranks, inner + mixer.num_heads + _states(mixer) // CHUNK).times(
        PLAIN_FORMULAS
    )


@mixer_activations.register
def _(mixer: MambaSpec, dim: int) -> Kept:
    # Decay and state of every number, in each of log2(chunk) passes of the scan.
    passes = 2 * (CHUNK - 1).bit_length() * mixer.inner_dim * mixer.state_dim
    return Kept(8 * mixer.inner_dim, 3 * mixer.inner_dim + passes)


@mixer_activations.register
def _(mixer: Mamba2Spec, dim: int) -> Kept:
    kept = 2 * mixer.conv_dim + 3 * mixer.inner_dim
    return Kept(kept, 2 * mixer.num_heads + _states(mixer) // CHUNK).times(PLAIN_FORMULAS)


@mixer_activations.register
def _(mixer: RWKVSpec, dim: int) -> Kept:
    # Three shifted inputs, key, value, receptance and their product; the running average.
    return Kept(3 * dim + 4 * mixer.attention_dim, 3 * mixer.attention_dim).times(PLAIN_FORMULAS)


@mixer_activations.register
def _(mixer: MatrixRWKVSpec, dim: int) -> Kept:
    # The shifted inputs; receptance, key, value, gate, what is read and its norm; the decay.
    inputs = 4 * dim if mixer.shift_rank is None else 2 * 5 * dim
    decay = mixer.inner_dim + _states(mixer) // CHUNK
    return Kept(inputs + 6 * mixer.inner_dim, decay).times(PLAIN_FORMULAS)


@mixer_activations.register
def _(mixer: ShortConvSpec, dim: int) -> Kept:
    return Kept(6 * mixer.dim)


@singledispatch
def ffn_activations(ffn: object, dim: int) -> Kept:
    """Count what one feed-forward part keeps, its own input left out."""
    raise TypeError(f"no activations are known for {type(ffn).__name__}")


@ffn_activations.register
def _(ffn: MLPSpec, dim: int) -> Kept:
    return Kept(ffn.hidden_dim * (3 if ffn.gated else 2))


@ffn_activations.register
def _(ffn: MoESpec, dim: int) -> Kept:
    width = ffn.latent_dim or dim
    one = ffn_activations(ffn.expert, width).model + 2 * width  # gathered input, weighted output
    kept = ffn.top_k * one + (width if ffn.latent_dim is not None else 0)
    if ffn.shared is not None:
        kept += ffn_activations(ffn.shared, dim).model + dim
    return Kept(kept, 2 * ffn.num_experts)


@ffn_activations.register
def _(ffn: ChannelMixSpec, dim: int) -> Kept:
    return Kept(4 * dim + 2 * ffn.hidden_dim)


def _states(mixer: GatedDeltaNetSpec | KimiDeltaSpec | Mamba2Spec | MatrixRWKVSpec) -> int:
    return mixer.states["matrix"].num_values
