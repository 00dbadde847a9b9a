"""Gemma 2's and Gemma 3's tensor names: Llama's, with four norms to a block."""

from __future__ import annotations

from weft.models.families.llama import branch_rules
from weft.models.hf_keys import Rule, decoder_rules, norm_rules
from weft.spec import LayerSpec, ModelSpec

NORMS = {
    "mixer_norm": "input_layernorm",
    "mixer_output_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_output_norm": "post_feedforward_layernorm",
}


def rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map of a text model."""
    return decoder_rules(spec, layer_rules)


def text_part_rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map of the text part of a model that also sees."""
    return tuple(rule.under("", "language_model.") for rule in rules(spec))


def layer_rules(layer: LayerSpec) -> tuple[Rule, ...]:
    """Return the key map of one layer."""
    return (*norm_rules(NORMS), *branch_rules(layer))
