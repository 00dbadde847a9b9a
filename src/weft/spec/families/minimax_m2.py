"""MiniMax-M2: norms over all heads at once, partial rotary, biased sigmoid routing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.spec.families.dense import (
    Defaults,
    attention_config,
    decoder_config,
    decoder_spec,
    dense_attention,
)
from weft.spec.families.experts import activation_config, experts_of, gated_mlp, mixed_layers
from weft.spec.families.fields import Fields
from weft.spec.families.mixtral import jittered
from weft.spec.ffn import MoESpec
from weft.spec.model import ModelSpec

MODEL_TYPE = "minimax_m2"
DEFAULTS = Defaults(theta=5_000_000.0, context_length=196_608, head_dim=128)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a ``config.json``; the multi-token prediction modules are left out."""
    fields.require("use_qk_norm", True)
    fields.require("qk_norm_type", "per_layer")
    fields.require("scoring_func", "sigmoid")
    fields.require("use_routing_bias", True)
    fields.require("shared_intermediate_size", 0)
    fields.require("sliding_window")
    mixer = replace(dense_attention(_with_partial(fields), DEFAULTS), qk_norm="all_heads")
    router = replace(jittered(fields), score="sigmoid", correction_bias=True)
    moe = MoESpec(
        num_experts=fields.integer("num_local_experts", 256),
        top_k=fields.integer("num_experts_per_tok", 8),
        expert=gated_mlp(fields, "intermediate_size"),
        router=router,
    )
    num_layers = fields.integer("num_hidden_layers")
    layers = mixed_layers([mixer] * num_layers, moe, None, [True] * num_layers)
    return decoder_spec(MODEL_TYPE, fields, layers, DEFAULTS)


def _with_partial(fields: Fields) -> Fields:
    """Published configurations give the rotated width itself, not its share of a head."""
    if fields.config.get("rotary_dim") is None:
        return fields
    share = fields.integer("rotary_dim") / fields.integer("head_dim", 128)
    return Fields({"partial_rotary_factor": share, **fields.config})


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    moe = experts_of(spec)
    return {
        **decoder_config(spec, "MiniMaxM2ForCausalLM"),
        **attention_config(spec),
        **activation_config(spec),
        "use_qk_norm": True,
        "qk_norm_type": "per_layer",
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
        "intermediate_size": moe.expert.hidden_dim,
        "num_local_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "router_jitter_noise": moe.router.noise,
        "output_router_logits": False,
    }
