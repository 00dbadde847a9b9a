"""Qwen3-Next (2025) and Qwen3.5 (2026), text models: three Gated DeltaNet layers to an attention.

Attention has an output gate, rotates a quarter of a head and normalises queries and keys; norms
store their distance from one. Qwen3-Next and Qwen3.5-MoE have a gated shared expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.attention import AttentionSpec
from weft.spec.families.dense import FULL, Defaults, decoder_config, decoder_spec, dense_attention
from weft.spec.families.experts import experts_of, gated_mlp
from weft.spec.families.fields import Fields
from weft.spec.families.qwen_moe import experts_config, softmax_experts, sparse_pattern
from weft.spec.families.rotary import rotary_to_hf
from weft.spec.ffn import MLPSpec
from weft.spec.model import FFNSpec, LayerSpec, ModelSpec, NormSpec
from weft.spec.recurrent import GatedDeltaNetSpec

QWEN3_NEXT, QWEN3_5, QWEN3_5_MOE = "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"
ARCHITECTURES = {
    QWEN3_NEXT: "Qwen3NextForCausalLM",
    QWEN3_5: "Qwen3_5ForCausalLM",
    QWEN3_5_MOE: "Qwen3_5MoeForCausalLM",
}
# Models that also see hold the text model's fields in ``text_config``.
MULTIMODAL = {"qwen3_5": QWEN3_5, "qwen3_5_moe": QWEN3_5_MOE}
LINEAR = "linear_attention"
DEFAULTS = Defaults(partial_rotary=0.25, context_length=32_768, head_dim=256)
NORM = NormSpec(zero_centred=True, float32_weight=True)
SHARED_FIELDS = ("eos_token_id", "bos_token_id", "pad_token_id", "tie_word_embeddings")


def from_hf(fields: Fields) -> ModelSpec:
    """Translate the ``config.json`` of a text model."""
    fields.require("hidden_act", "silu")
    bias = fields.flag("attention_bias", False)
    attention = replace(
        dense_attention(fields, DEFAULTS),
        qkv_bias=bias, out_bias=bias, qk_norm="head", output_gate=True,
    )  # fmt: skip
    mixers = {FULL: attention, LINEAR: _delta_net(fields)}
    interval = fields.integer("full_attention_interval", 4)
    num_layers = fields.integer("num_hidden_layers")
    kinds = fields.layer_types(
        [LINEAR if (index + 1) % interval else FULL for index in range(num_layers)]
    )
    for kind in set(kinds) - set(mixers):
        raise UnsupportedError(
            f"config.json: layer_types has {kind!r}; this family supports {FULL!r}, {LINEAR!r}"
        )
    layers = tuple(
        LayerSpec(mixers[kind], ffn) for kind, ffn in zip(kinds, _ffns(fields), strict=True)
    )
    return decoder_spec(str(fields.config["model_type"]), fields, layers, DEFAULTS, norm=NORM)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    attention = next((m for m in _mixers(spec) if isinstance(m, AttentionSpec)), None)
    delta = next((m for m in _mixers(spec) if isinstance(m, GatedDeltaNetSpec)), None)
    if attention is None or attention.rotary is None or delta is None:
        raise UnsupportedError(
            f"{spec.family} has both Gated DeltaNet and attention layers that rotate"
        )
    return {
        **decoder_config(spec, ARCHITECTURES[spec.family]),
        **_ffn_config(spec),
        "hidden_act": "silu",
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "head_dim": attention.head_dim,
        "attention_bias": attention.qkv_bias,
        "attention_dropout": 0.0,
        **rotary_to_hf(attention.rotary, attention.head_dim),
        "partial_rotary_factor": attention.rotary_dim / attention.head_dim,
        "layer_types": [FULL if isinstance(m, AttentionSpec) else LINEAR for m in _mixers(spec)],
        "linear_num_key_heads": delta.num_key_heads,
        "linear_num_value_heads": delta.num_value_heads,
        "linear_key_head_dim": delta.key_dim,
        "linear_value_head_dim": delta.value_dim,
        "linear_conv_kernel_dim": delta.conv_kernel,
    }


def multimodal_from_hf(fields: Fields) -> ModelSpec:
    """Translate the text part of a model that also sees; its images are left out.

    Text has equal positions on all axes of M-RoPE, so it rotates as with one.
    """
    text = fields.config.get("text_config")
    model_type = str(fields.config["model_type"])
    if not isinstance(text, Mapping):
        raise UnsupportedError(f"config.json: {model_type} without a text_config has no text model")
    shared = {
        name: fields.config[name] for name in SHARED_FIELDS if fields.config.get(name) is not None
    }
    return from_hf(Fields({**shared, **text, "model_type": MULTIMODAL[model_type]}))


def _mixers(spec: ModelSpec) -> list[object]:
    return [layer.mixer for layer in spec.layers]


def _delta_net(fields: Fields) -> GatedDeltaNetSpec:
    return GatedDeltaNetSpec(
        num_key_heads=fields.integer("linear_num_key_heads", 16),
        num_value_heads=fields.integer("linear_num_value_heads", 32),
        key_dim=fields.integer("linear_key_head_dim", 128),
        value_dim=fields.integer("linear_value_head_dim", 128),
        conv_kernel=fields.integer("linear_conv_kernel_dim", 4),
    )


def _ffns(fields: Fields) -> list[FFNSpec]:
    num_layers = fields.integer("num_hidden_layers")
    model_type = fields.config["model_type"]
    if model_type == QWEN3_5 or (model_type == QWEN3_NEXT and not _num_experts(fields)):
        return [gated_mlp(fields, "intermediate_size")] * num_layers
    shared = gated_mlp(fields, "shared_expert_intermediate_size")
    if model_type == QWEN3_5_MOE:
        fields.require("norm_topk_prob", True)
        return [softmax_experts(fields, shared, normalise=True)] * num_layers
    moe = softmax_experts(fields, shared, normalise=True)
    return [
        moe if sparse else gated_mlp(fields, "intermediate_size")
        for sparse in sparse_pattern(fields)
    ]


def _num_experts(fields: Fields) -> int:
    return fields.integer("num_experts", 512)


def _ffn_config(spec: ModelSpec) -> dict[str, Any]:
    first = spec.layers[0].ffn
    if all(isinstance(layer.ffn, MLPSpec) for layer in spec.layers):
        assert isinstance(first, MLPSpec)
        width = {"intermediate_size": first.hidden_dim}
        return {**width, "num_experts": 0} if spec.family == QWEN3_NEXT else width
    shared = experts_of(spec).shared
    return {
        **experts_config(spec),
        "shared_expert_intermediate_size": 0 if shared is None else shared.hidden_dim,
    }
