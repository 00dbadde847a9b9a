"""Qwen3 dense models (arXiv:2505.09388): Llama with QK-norm and a free head width."""

from __future__ import annotations

from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.attention import AttentionSpec
from weft.spec.families.dense import dense_config, dense_spec
from weft.spec.families.fields import Fields
from weft.spec.model import ModelSpec

MODEL_TYPE = "qwen3"


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a Qwen3 ``config.json``."""
    fields.require("use_sliding_window", False)
    num_heads = fields.integer("num_attention_heads")
    bias = fields.flag("attention_bias", False)
    attention = AttentionSpec(
        num_heads=num_heads,
        num_kv_heads=fields.integer("num_key_value_heads", num_heads),
        head_dim=fields.integer("head_dim", 128),
        rotary=fields.rotary(default_theta=1_000_000.0),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm="head",
    )
    return dense_spec(MODEL_TYPE, fields, attention)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    attention, mlp = spec.layers[0].mixer, spec.layers[0].ffn
    if attention.qk_norm != "head" or attention.qkv_bias != attention.out_bias or mlp.bias:
        raise UnsupportedError("Qwen3 has QK-norm and no feed-forward bias")
    return {
        **dense_config(spec, model_type=MODEL_TYPE, architecture="Qwen3ForCausalLM"),
        "attention_bias": attention.qkv_bias,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": spec.num_layers,
        "layer_types": ["full_attention"] * spec.num_layers,
    }
