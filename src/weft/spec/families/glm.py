"""GLM-4 (arXiv:2406.12793): half of each head rotates, in interleaved pairs; biased queries.

``glm`` has norms before branches, ``glm4`` (the models of April 2025) on both sides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.spec.families.dense import Defaults, attentions, dense_attention, dense_config, dense_spec
from weft.spec.families.fields import Fields
from weft.spec.model import ModelSpec, NormPlacement

MODEL_TYPE = "glm"
SANDWICH_TYPE = "glm4"
DEFAULTS = Defaults(partial_rotary=0.5, eps=1.5625e-07, context_length=131_072, head_dim=128)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a ``config.json`` of type glm."""
    return _spec(MODEL_TYPE, fields, "pre")


def sandwich_from_hf(fields: Fields) -> ModelSpec:
    """Translate a ``config.json`` of type glm4."""
    return _spec(SANDWICH_TYPE, fields, "sandwich")


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    return _config(spec, "GlmForCausalLM")


def sandwich_to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    return _config(spec, "Glm4ForCausalLM")


def _spec(family: str, fields: Fields, norms: NormPlacement) -> ModelSpec:
    attention = dense_attention(fields, DEFAULTS)
    assert attention.rotary is not None
    attention = replace(
        attention,
        rotary=replace(attention.rotary, layout="interleaved"),
        qkv_bias=fields.flag("attention_bias", True),
    )
    mixers = [attention] * fields.integer("num_hidden_layers")
    return dense_spec(family, fields, mixers, DEFAULTS, norms=norms)


def _config(spec: ModelSpec, architecture: str) -> dict[str, Any]:
    attention = attentions(spec)[0]
    rotary_dim = attention.rotary_dim
    config = dense_config(spec, architecture)
    # A missing factor would mean one half.
    config["rope_parameters"]["partial_rotary_factor"] = rotary_dim / attention.head_dim
    return {
        **config,
        "partial_rotary_factor": rotary_dim / attention.head_dim,
        "attention_bias": attention.qkv_bias,
    }
