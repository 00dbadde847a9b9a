"""Mixtral (arXiv:2401.04088): Mistral with eight experts, two per token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.spec.families.dense import (
    Defaults,
    attention_config,
    attentions,
    decoder_config,
    decoder_spec,
    dense_attention,
)
from weft.spec.families.experts import activation_config, experts_of, gated_mlp, mixed_layers
from weft.spec.families.fields import Fields
from weft.spec.ffn import MoESpec, RouterSpec
from weft.spec.model import ModelSpec

MODEL_TYPE = "mixtral"
DEFAULTS = Defaults(theta=1_000_000.0, eps=1e-5, context_length=131_072)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a ``config.json``."""
    window = fields.optional_integer("sliding_window")
    mixer = replace(dense_attention(fields, DEFAULTS), window=window)
    moe = MoESpec(
        num_experts=fields.integer("num_local_experts", 8),
        top_k=fields.integer("num_experts_per_tok", 2),
        expert=gated_mlp(fields, "intermediate_size"),
        router=jittered(fields),
    )
    num_layers = fields.integer("num_hidden_layers")
    layers = mixed_layers([mixer] * num_layers, moe, None, [True] * num_layers)
    return decoder_spec(MODEL_TYPE, fields, layers, DEFAULTS)


def jittered(fields: Fields) -> RouterSpec:
    """Read the noise on the router's input in training."""
    noise = fields.number("router_jitter_noise", 0.0)
    return RouterSpec(noise=noise, noise_kind="jitter" if noise else "gaussian")


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    moe = experts_of(spec)
    return {
        **decoder_config(spec, "MixtralForCausalLM"),
        **attention_config(spec),
        **activation_config(spec),
        "intermediate_size": moe.expert.hidden_dim,
        "num_local_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "router_jitter_noise": moe.router.noise,
        "sliding_window": attentions(spec)[0].window,
        "output_router_logits": False,
    }
