"""Qwen3 dense models (arXiv:2505.09388): Llama with QK-norm and a free head width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.spec.families.dense import Defaults, attentions, dense_attention, dense_config, dense_spec
from weft.spec.families.fields import Fields
from weft.spec.families.qwen2 import late_window_config, late_windows
from weft.spec.model import ModelSpec

MODEL_TYPE = "qwen3"
DEFAULTS = Defaults(context_length=32_768, head_dim=128)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a Qwen3 ``config.json``."""
    bias = fields.flag("attention_bias", False)
    attention = dense_attention(fields, DEFAULTS)
    attention = replace(attention, qkv_bias=bias, out_bias=bias, qk_norm="head")
    return dense_spec(MODEL_TYPE, fields, late_windows(fields, attention), DEFAULTS)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    return {
        **dense_config(spec, "Qwen3ForCausalLM"),
        **late_window_config(spec),
        "attention_bias": attentions(spec)[0].qkv_bias,
    }
