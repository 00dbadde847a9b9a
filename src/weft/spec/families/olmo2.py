"""OLMo 2 (arXiv:2501.00656): norms after branches, QK-norm over all heads at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from weft.spec.attention import AttentionSpec
from weft.spec.families.dense import Defaults, attentions, dense_attention, dense_config, dense_spec
from weft.spec.families.fields import Fields
from weft.spec.model import ModelSpec, NormSpec

MODEL_TYPE = "olmo2"
DEFAULTS = Defaults(eps=1e-5)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate an OLMo 2 ``config.json``."""
    attention = olmo_attention(fields, DEFAULTS)
    return olmo_spec(
        MODEL_TYPE, fields, [attention] * fields.integer("num_hidden_layers"), DEFAULTS
    )


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    return olmo_config(spec, "Olmo2ForCausalLM")


def olmo_attention(
    fields: Fields, defaults: Defaults, *, layer_type: str | None = None
) -> AttentionSpec:
    """Read the attention of one kind of layers."""
    bias = fields.flag("attention_bias", False)
    attention = dense_attention(fields, defaults, layer_type=layer_type)
    return replace(attention, qkv_bias=bias, out_bias=bias, qk_norm="all_heads")


def olmo_spec(
    family: str, fields: Fields, mixers: Sequence[AttentionSpec], defaults: Defaults
) -> ModelSpec:
    """Build a model whose branches are normalised at their output."""
    norm = NormSpec(float32_weight=True)
    return dense_spec(family, fields, mixers, defaults, norms="output", norm=norm)


def olmo_config(spec: ModelSpec, architecture: str) -> dict[str, Any]:
    """Write the fields that both versions have."""
    attention_bias = attentions(spec)[0].qkv_bias
    return {**dense_config(spec, architecture), "attention_bias": attention_bias}
