"""Llama 2 and 3 (arXiv:2307.09288, arXiv:2407.21783)."""

from __future__ import annotations

from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.attention import AttentionSpec
from weft.spec.families.dense import dense_config, dense_spec
from weft.spec.families.fields import Fields
from weft.spec.model import ModelSpec

MODEL_TYPE = "llama"


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a Llama ``config.json``."""
    num_heads = fields.integer("num_attention_heads")
    bias = fields.flag("attention_bias", False)
    attention = AttentionSpec(
        num_heads=num_heads,
        num_kv_heads=fields.integer("num_key_value_heads", num_heads),
        head_dim=fields.integer("head_dim", fields.integer("hidden_size") // num_heads),
        rotary=fields.rotary(),
        qkv_bias=bias,
        out_bias=bias,
    )
    return dense_spec(MODEL_TYPE, fields, attention, mlp_bias=fields.flag("mlp_bias", False))


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    attention, mlp = spec.layers[0].mixer, spec.layers[0].ffn
    if attention.qk_norm != "none" or attention.qkv_bias != attention.out_bias:
        raise UnsupportedError("Llama has no QK-norm and the same bias on all projections")
    return {
        **dense_config(spec, model_type=MODEL_TYPE, architecture="LlamaForCausalLM"),
        "attention_bias": attention.qkv_bias,
        "mlp_bias": mlp.bias,
    }
