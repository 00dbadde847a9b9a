"""Mistral 7B and its successors (arXiv:2310.06825): Llama with a window in every layer, or none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.spec.families.dense import Defaults, attentions, dense_attention, dense_config, dense_spec
from weft.spec.families.fields import Fields
from weft.spec.model import ModelSpec

MODEL_TYPE = "mistral"
DEFAULTS = Defaults(context_length=131_072)
DEFAULT_WINDOW = 4096


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a Mistral ``config.json``; a null ``sliding_window`` is full attention."""
    window = fields.optional_integer("sliding_window", DEFAULT_WINDOW)
    attention = replace(dense_attention(fields, DEFAULTS), window=window)
    mixers = [attention] * fields.integer("num_hidden_layers")
    return dense_spec(MODEL_TYPE, fields, mixers, DEFAULTS)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    return {
        **dense_config(spec, "MistralForCausalLM"),
        "sliding_window": attentions(spec)[0].window,
    }
