"""SmolLM3: Llama in which every fourth layer has no positions (NoPE, arXiv:2501.18795)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.spec.attention import AttentionSpec
from weft.spec.families.dense import (
    FULL,
    WINDOWED,
    Defaults,
    attentions,
    dense_attention,
    dense_config,
    dense_spec,
    first_mlp,
    window_config,
    windowed,
)
from weft.spec.families.fields import Fields
from weft.spec.model import ModelSpec

MODEL_TYPE = "smollm3"
DEFAULTS = Defaults(theta=2_000_000.0, tied=True, context_length=32_768)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a SmolLM3 ``config.json``."""
    bias = fields.flag("attention_bias", False)
    attention = replace(dense_attention(fields, DEFAULTS), qkv_bias=bias, out_bias=bias)
    num_layers = fields.integer("num_hidden_layers")
    every = fields.integer("no_rope_layer_interval", 4)
    rotates = fields.config.get("no_rope_layers")
    if rotates is None:
        rotates = [(index + 1) % every != 0 for index in range(num_layers)]
    pattern = [FULL if turned else WINDOWED for turned in rotates[:num_layers]]
    window = fields.optional_integer("sliding_window")
    if window is None or not fields.flag("use_sliding_window", False):
        mixers = [attention] * num_layers
    else:
        mixers = windowed(attention, fields.layer_types(pattern), window)
    mixers = [_placed(mixer, bool(turned)) for mixer, turned in zip(mixers, rotates, strict=False)]
    return dense_spec(MODEL_TYPE, fields, mixers, DEFAULTS, mlp_bias=fields.flag("mlp_bias", False))


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    mixers, windows = attentions(spec), window_config(spec)
    return {
        **dense_config(spec, "SmolLM3ForCausalLM"),
        **windows,
        "use_sliding_window": windows["sliding_window"] is not None,
        "no_rope_layers": [int(mixer.rotary is not None) for mixer in mixers],
        "attention_bias": mixers[0].qkv_bias,
        "mlp_bias": first_mlp(spec).bias,
    }


def _placed(mixer: AttentionSpec, turned: bool) -> AttentionSpec:
    return mixer if turned else replace(mixer, rotary=None)
