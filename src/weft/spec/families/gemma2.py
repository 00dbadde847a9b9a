"""Gemma 2 (arXiv:2408.00118): alternating windows, soft-capped scores, norms around branches."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    window_config,
    windowed,
)
from weft.spec.families.fields import Fields
from weft.spec.model import ModelSpec, NormSpec

MODEL_TYPE = "gemma2"
DEFAULTS = Defaults(tied=True, context_length=8192, activation="gelu_pytorch_tanh", head_dim=256)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a Gemma 2 ``config.json``."""
    attention = replace(
        gemma_attention(fields, DEFAULTS),
        softcap=fields.optional_number("attn_logit_softcapping", 50.0),
    )
    pattern = [FULL if index % 2 else WINDOWED for index in _layers(fields)]
    window = fields.optional_integer("sliding_window", 4096)
    mixers = windowed(attention, fields.layer_types(pattern), window)
    spec = gemma_spec(MODEL_TYPE, fields, mixers, DEFAULTS)
    return replace(spec, logit_softcap=fields.optional_number("final_logit_softcapping", 30.0))


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    return {
        **gemma_config(spec, "Gemma2ForCausalLM"),
        "attn_logit_softcapping": attentions(spec)[0].softcap,
    }


def gemma_attention(
    fields: Fields, defaults: Defaults, *, layer_type: str | None = None
) -> AttentionSpec:
    """Read what the attention of all Gemmas shares: a scale of its own."""
    fields.require("use_bidirectional_attention", False)
    bias = fields.flag("attention_bias", False)
    return replace(
        dense_attention(fields, defaults, layer_type=layer_type),
        qkv_bias=bias,
        out_bias=bias,
        scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
    )


def gemma_spec(
    family: str, fields: Fields, mixers: Sequence[AttentionSpec], defaults: Defaults
) -> ModelSpec:
    """Build a Gemma: zero-centred norms around branches, embeddings scaled by sqrt(D)."""
    spec = dense_spec(
        family,
        fields,
        mixers,
        defaults,
        norms="sandwich",
        norm=NormSpec(zero_centred=True, float32_weight=True),
        activation_field="hidden_activation",
    )
    return replace(spec, embedding_scale=math.sqrt(spec.dim))


def gemma_config(spec: ModelSpec, architecture: str) -> dict[str, Any]:
    """Write the fields of ``gemma_attention`` and ``gemma_spec``."""
    attention = attentions(spec)[0]
    return {
        **dense_config(spec, architecture, activation_field="hidden_activation"),
        **window_config(spec),
        "attention_bias": attention.qkv_bias,
        "query_pre_attn_scalar": round(attention.softmax_scale**-2),
        "final_logit_softcapping": spec.logit_softcap,
    }


def _layers(fields: Fields) -> range:
    return range(fields.integer("num_hidden_layers"))
