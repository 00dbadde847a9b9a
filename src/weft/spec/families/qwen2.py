"""Qwen2 and Qwen2.5 (arXiv:2407.10671, arXiv:2412.15115): biased queries, keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from weft.spec.attention import AttentionSpec
from weft.spec.families.dense import (
    FULL,
    WINDOWED,
    Defaults,
    dense_attention,
    dense_config,
    dense_spec,
    window_config,
    windowed,
)
from weft.spec.families.fields import Fields
from weft.spec.model import ModelSpec

MODEL_TYPE = "qwen2"
DEFAULTS = Defaults(context_length=32_768)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a Qwen2 ``config.json``."""
    attention = replace(dense_attention(fields, DEFAULTS), qkv_bias=True)
    return dense_spec(MODEL_TYPE, fields, late_windows(fields, attention), DEFAULTS)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    return {**dense_config(spec, "Qwen2ForCausalLM"), **late_window_config(spec)}


def late_windows(fields: Fields, attention: AttentionSpec) -> Sequence[AttentionSpec]:
    """Return the attention of every layer: windowed from ``max_window_layers`` on, if at all."""
    num_layers = fields.integer("num_hidden_layers")
    first = fields.integer("max_window_layers", 28)
    kinds = [WINDOWED if index >= first else FULL for index in range(num_layers)]
    window = fields.optional_integer("sliding_window", 4096)
    if window is None or not fields.flag("use_sliding_window", False):
        return [attention] * num_layers
    return windowed(attention, fields.layer_types(kinds), window)


def late_window_config(spec: ModelSpec) -> dict[str, Any]:
    """Write the fields that ``late_windows`` reads."""
    fields = window_config(spec)
    return {
        **fields,
        "use_sliding_window": fields["sliding_window"] is not None,
        "max_window_layers": (fields["layer_types"] + [WINDOWED]).index(WINDOWED),
    }
