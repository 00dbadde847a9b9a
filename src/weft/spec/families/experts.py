"""What families with a mixture of experts share in ``config.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.families.dense import ACTIVATIONS
from weft.spec.families.fields import Fields
from weft.spec.ffn import MLPSpec, MoESpec
from weft.spec.model import LayerSpec, MixerSpec, ModelSpec


def gated_mlp(fields: Fields, width_field: str) -> MLPSpec:
    """Read a gated feed-forward part without bias."""
    return MLPSpec(fields.integer(width_field), fields.choice("hidden_act", ACTIVATIONS, "silu"))


def mixed_layers(
    mixers: Sequence[MixerSpec],
    moe: MoESpec | None,
    dense: MLPSpec | None,
    sparse: Sequence[bool],
) -> tuple[LayerSpec, ...]:
    """Return layers with experts where ``sparse`` says so and the dense part elsewhere."""
    layers = []
    for mixer, has_experts in zip(mixers, sparse, strict=True):
        ffn = moe if has_experts else dense
        assert ffn is not None
        layers.append(LayerSpec(mixer, ffn))
    return tuple(layers)


def experts_of(spec: ModelSpec) -> MoESpec:
    """Return the mixture that all sparse layers share.

    Raises:
        UnsupportedError: there is none or they differ.
    """
    found = {layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoESpec)}
    if len(found) != 1:
        raise UnsupportedError(
            f"{spec.family} has the same experts in all its sparse layers",
            fix="use a dense family for a model without experts",
        )
    return found.pop()


def dense_width(spec: ModelSpec) -> int:
    """Return the width of the dense layers; that of an expert where every layer is sparse."""
    widths = {layer.ffn.hidden_dim for layer in spec.layers if isinstance(layer.ffn, MLPSpec)}
    return widths.pop() if widths else experts_of(spec).expert.hidden_dim


def sparse_layers(spec: ModelSpec) -> list[bool]:
    """Return for each layer whether it has experts."""
    return [isinstance(layer.ffn, MoESpec) for layer in spec.layers]


def activation_config(spec: ModelSpec) -> dict[str, Any]:
    """Write the activation of the experts."""
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    activation = experts_of(spec).expert.activation
    return {"hidden_act": names.get(activation, activation)}
