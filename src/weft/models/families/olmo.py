"""OLMo 2's and OLMo 3's tensor names: Llama's, with the norms behind the branches."""

from __future__ import annotations

from weft.models.families.llama import branch_rules
from weft.models.hf_keys import Rule, decoder_rules, norm_rules
from weft.spec import LayerSpec, ModelSpec

NORMS = {"mixer_norm": "post_attention_layernorm", "ffn_norm": "post_feedforward_layernorm"}


def rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map."""
    return decoder_rules(spec, layer_rules)


def layer_rules(layer: LayerSpec) -> tuple[Rule, ...]:
    """Return the key map of one layer."""
    return (*norm_rules(NORMS), *branch_rules(layer))
