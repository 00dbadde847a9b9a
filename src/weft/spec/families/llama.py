"""Llama 2 and 3 (arXiv:2307.09288, arXiv:2407.21783)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.spec.families.dense import (
    attentions,
    dense_attention,
    dense_config,
    dense_spec,
    first_mlp,
)
from weft.spec.families.fields import Fields
from weft.spec.model import ModelSpec

MODEL_TYPE = "llama"


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a Llama ``config.json``."""
    bias = fields.flag("attention_bias", False)
    attention = replace(dense_attention(fields), qkv_bias=bias, out_bias=bias)
    mixers = [attention] * fields.integer("num_hidden_layers")
    return dense_spec(MODEL_TYPE, fields, mixers, mlp_bias=fields.flag("mlp_bias", False))


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    return {
        **dense_config(spec, "LlamaForCausalLM"),
        "attention_bias": attentions(spec)[0].qkv_bias,
        "mlp_bias": first_mlp(spec).bias,
    }
