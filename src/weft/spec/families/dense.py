"""What families of dense decoders share in ``config.json``.

A family says what it means by missing fields (``Defaults``), reads one ``AttentionSpec`` per layer
and lists the fields that only it has. Nothing is checked when writing: ``spec_to_hf`` reads back
what was written and refuses a specification that does not survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.attention import AttentionSpec
from weft.spec.families.fields import Fields
from weft.spec.families.rotary import rotary_to_hf
from weft.spec.ffn import Activation, MLPSpec
from weft.spec.model import LayerSpec, ModelSpec, NormPlacement, NormSpec
from weft.spec.rotary import RotarySpec

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
WINDOWED, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Defaults:
    """What a family means by a missing field.

    Attributes:
        theta: Of rotary positions.
        partial_rotary: How much of a head rotates.
        eps: Of the norms.
        tied: Whether the output projection is the embedding.
        context_length: Of ``max_position_embeddings``.
        activation: Of the feed-forward part, in their words.
        head_dim: Width of a head; none means ``hidden_size / num_attention_heads``.
    """

    theta: float = 10_000.0
    partial_rotary: float = 1.0
    eps: float = 1e-6
    tied: bool = False
    context_length: int = 2048
    activation: str = "silu"
    head_dim: int | None = None


LLAMA = Defaults()
RMS = NormSpec()


def dense_attention(
    fields: Fields, defaults: Defaults = LLAMA, *, layer_type: str | None = None
) -> AttentionSpec:
    """Read numbers and widths of heads, and the rotary positions of one kind of layers."""
    num_heads = fields.integer("num_attention_heads")
    head_dim = fields.config.get("head_dim") or defaults.head_dim
    head_dim = head_dim or fields.integer("hidden_size") // num_heads
    return AttentionSpec(
        num_heads=num_heads,
        num_kv_heads=fields.integer("num_key_value_heads", num_heads),
        head_dim=head_dim,
        rotary=fields.rotary(
            defaults.theta,
            head_dim=head_dim,
            default_partial=defaults.partial_rotary,
            layer_type=layer_type,
        ),
    )


def dense_spec(
    family: str,
    fields: Fields,
    mixers: Sequence[AttentionSpec],
    defaults: Defaults = LLAMA,
    *,
    mlp_bias: bool = False,
    norms: NormPlacement = "pre",
    norm: NormSpec = RMS,
    activation_field: str = "hidden_act",
) -> ModelSpec:
    """Build a decoder with gated feed-forward parts; ``norm`` gets its eps from the fields."""
    activation = fields.choice(activation_field, ACTIVATIONS, defaults.activation)
    mlp = MLPSpec(fields.integer("intermediate_size"), activation, bias=mlp_bias)
    layers = tuple(LayerSpec(mixer, mlp, norms) for mixer in mixers)
    return decoder_spec(family, fields, layers, defaults, norm=norm)


def decoder_spec(
    family: str,
    fields: Fields,
    layers: tuple[LayerSpec, ...],
    defaults: Defaults = LLAMA,
    *,
    norm: NormSpec = RMS,
) -> ModelSpec:
    """Build a decoder of any layers from the fields that nearly every family has."""
    eps = fields.number("rms_norm_eps", defaults.eps)
    return ModelSpec(
        family=family,
        vocab_size=fields.integer("vocab_size"),
        dim=fields.integer("hidden_size"),
        layers=layers,
        norm=replace(norm, eps=eps),
        tie_embeddings=fields.flag("tie_word_embeddings", defaults.tied),
        context_length=fields.integer("max_position_embeddings", defaults.context_length),
        bos_id=fields.token_id("bos_token_id"),
        eos_ids=fields.token_ids("eos_token_id"),
        pad_id=fields.token_id("pad_token_id"),
    )


def dense_config(
    spec: ModelSpec, architecture: str, *, activation_field: str = "hidden_act"
) -> dict[str, Any]:
    """Write the fields that ``dense_attention`` and ``dense_spec`` read."""
    mlp = first_mlp(spec)
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        **decoder_config(spec, architecture),
        **attention_config(spec),
        "intermediate_size": mlp.hidden_dim,
        activation_field: names.get(mlp.activation, mlp.activation),
    }


def decoder_config(spec: ModelSpec, architecture: str) -> dict[str, Any]:
    """Write the fields that ``decoder_spec`` reads."""
    return {
        "architectures": [architecture],
        "model_type": spec.family,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.dim,
        "num_hidden_layers": spec.num_layers,
        "max_position_embeddings": spec.context_length,
        "rms_norm_eps": spec.norm.eps,
        "tie_word_embeddings": spec.tie_embeddings,
        "bos_token_id": spec.bos_id,
        "eos_token_id": spec.eos_ids[0] if len(spec.eos_ids) == 1 else list(spec.eos_ids) or None,
        "pad_token_id": spec.pad_id,
        "use_cache": True,
    }


def attention_config(spec: ModelSpec) -> dict[str, Any]:
    """Write heads and rotary positions, those of the first layer that has any."""
    mixers = attentions(spec)
    first = mixers[0]
    rotary = next((mixer.rotary for mixer in mixers if mixer.rotary is not None), RotarySpec())
    return {
        "num_attention_heads": first.num_heads,
        "num_key_value_heads": first.num_kv_heads,
        "head_dim": first.head_dim,
        "attention_dropout": 0.0,
        **rotary_to_hf(rotary, first.head_dim),
    }


def attentions(spec: ModelSpec) -> tuple[AttentionSpec, ...]:
    """Return the mixers of all layers.

    Raises:
        UnsupportedError: a layer mixes tokens otherwise.
    """
    found = tuple(layer.mixer for layer in spec.layers if isinstance(layer.mixer, AttentionSpec))
    if len(found) != spec.num_layers:
        raise UnsupportedError(f"{spec.family} has softmax attention in every layer")
    return found


def first_mlp(spec: ModelSpec) -> MLPSpec:
    """Return the feed-forward part of the first layer.

    Raises:
        UnsupportedError: it is of another kind.
    """
    mlp = spec.layers[0].ffn
    if not isinstance(mlp, MLPSpec):
        raise UnsupportedError(f"{spec.family} has dense feed-forward parts")
    return mlp


def windowed(mixer: AttentionSpec, kinds: Sequence[str], window: int | None) -> list[AttentionSpec]:
    """Return one attention per layer, with the window where the layer's kind says so."""
    return by_kind(kinds, full=mixer, local=replace(mixer, window=window))


def by_kind(
    kinds: Sequence[str], *, full: AttentionSpec, local: AttentionSpec
) -> list[AttentionSpec]:
    """Return the attention of every layer.

    Raises:
        UnsupportedError: a kind of layer that is neither full nor windowed.
    """
    for kind in kinds:
        if kind not in (FULL, WINDOWED):
            raise UnsupportedError(
                f"config.json: layer_types has {kind!r}",
                fix=f"this family supports {FULL!r} and {WINDOWED!r}",
            )
    return [local if kind == WINDOWED else full for kind in kinds]


def window_config(spec: ModelSpec) -> dict[str, Any]:
    """Write the kind of every layer and the window they share."""
    windows = [mixer.window for mixer in attentions(spec)]
    return {
        "layer_types": [FULL if window is None else WINDOWED for window in windows],
        "sliding_window": next((window for window in windows if window is not None), None),
    }
