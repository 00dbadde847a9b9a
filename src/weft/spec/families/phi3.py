"""Phi-3, Phi-3.5 and Phi-4 (arXiv:2404.14219, arXiv:2412.08905): fused projections, LongRoPE."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.spec.families.dense import Defaults, attentions, dense_attention, dense_config, dense_spec
from weft.spec.families.fields import Fields
from weft.spec.families.rotary import ORIGINAL
from weft.spec.model import ModelSpec

MODEL_TYPE = "phi3"
DEFAULTS = Defaults(eps=1e-5, context_length=4096)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a Phi-3 ``config.json``."""
    window = fields.optional_integer("sliding_window")
    attention = replace(dense_attention(fields, DEFAULTS), window=window)
    mixers = [attention] * fields.integer("num_hidden_layers")
    return dense_spec(MODEL_TYPE, fields, mixers, DEFAULTS)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    attention = attentions(spec)[0]
    scaling = None if attention.rotary is None else attention.rotary.scaling
    original = spec.context_length if scaling is None else scaling.original_context
    return {
        **dense_config(spec, "Phi3ForCausalLM"),
        "sliding_window": attention.window,
        ORIGINAL: original,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
    }
