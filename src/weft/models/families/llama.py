"""Llama's tensor names."""

from __future__ import annotations

from weft.models.hf_keys import (
    Rule,
    attention_rules,
    decoder_rules,
    gated_mlp_rules,
    pre_norm_rules,
)
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec


def rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map; biases and the head appear only where the specification has them."""
    return decoder_rules(spec, layer_rules)


def layer_rules(layer: LayerSpec) -> tuple[Rule, ...]:
    """Return the key map of one layer."""
    return (*pre_norm_rules(), *branch_rules(layer))


def branch_rules(layer: LayerSpec) -> tuple[Rule, ...]:
    """Return the key map of one layer's attention and feed-forward part, without norms."""
    assert isinstance(layer.mixer, AttentionSpec)
    assert isinstance(layer.ffn, MLPSpec)
    return (*attention_rules(layer.mixer), *gated_mlp_rules(layer.ffn))
