"""gpt-oss (arXiv:2508.10925): attention sinks, every other layer windowed, clamped SwiGLU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.spec.families.dense import (
    FULL,
    WINDOWED,
    Defaults,
    attention_config,
    attentions,
    decoder_config,
    decoder_spec,
    dense_attention,
    window_config,
    windowed,
)
from weft.spec.families.experts import experts_of, mixed_layers
from weft.spec.families.fields import Fields
from weft.spec.ffn import MLPSpec, MoESpec, RouterSpec
from weft.spec.model import ModelSpec, NormSpec

MODEL_TYPE = "gpt_oss"
DEFAULTS = Defaults(theta=150_000.0, eps=1e-5, context_length=131_072, head_dim=64)
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
# The activation's constants, which are not free here.
ALPHA, LIMIT = 1.702, 7.0


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a ``config.json``; experts stored as MXFP4 are unpacked on loading."""
    fields.require("hidden_act", "silu")
    fields.require("swiglu_alpha", ALPHA)
    fields.require("swiglu_limit", LIMIT)
    if not (fields.config.get("rope_parameters") or fields.config.get("rope_scaling")):
        fields = Fields({**fields.config, "rope_parameters": YARN})
    bias = fields.flag("attention_bias", True)
    mixer = dense_attention(fields, DEFAULTS)
    mixer = replace(mixer, qkv_bias=bias, out_bias=bias, sinks=True)
    num_layers = fields.integer("num_hidden_layers")
    pattern = [FULL if index % 2 else WINDOWED for index in range(num_layers)]
    window = fields.integer("sliding_window", 128)
    mixers = windowed(mixer, fields.layer_types(pattern), window)
    layers = mixed_layers(mixers, _experts(fields), None, [True] * num_layers)
    return decoder_spec(MODEL_TYPE, fields, layers, DEFAULTS, norm=NormSpec(float32_weight=True))


def _experts(fields: Fields) -> MoESpec:
    num_experts = fields.integer("num_local_experts", fields.config.get("num_experts", 128))
    return MoESpec(
        num_experts=num_experts,
        top_k=fields.integer("num_experts_per_tok", fields.config.get("experts_per_token", 4)),
        expert=MLPSpec(fields.integer("intermediate_size"), "clamped_swish", bias=True),
        router=RouterSpec(score="softmax_chosen", bias=True),
    )


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    moe = experts_of(spec)
    return {
        **decoder_config(spec, "GptOssForCausalLM"),
        **attention_config(spec),
        **window_config(spec),
        "hidden_act": "silu",
        "swiglu_alpha": ALPHA,
        "swiglu_limit": LIMIT,
        "attention_bias": attentions(spec)[0].qkv_bias,
        "intermediate_size": moe.expert.hidden_dim,
        "num_local_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "output_router_logits": False,
    }
