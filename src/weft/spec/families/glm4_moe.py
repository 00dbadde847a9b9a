"""GLM-4.5 and 4.6 (arXiv:2508.06471): half rotary, first layers dense, DeepSeek-V3's routing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.families.dense import (
    Defaults,
    attention_config,
    attentions,
    decoder_config,
    decoder_spec,
    dense_attention,
)
from weft.spec.families.experts import (
    activation_config,
    dense_width,
    experts_of,
    gated_mlp,
    mixed_layers,
    sparse_layers,
)
from weft.spec.families.fields import Fields
from weft.spec.ffn import MLPSpec, MoESpec, RouterSpec
from weft.spec.model import ModelSpec

MODEL_TYPE = "glm4_moe"
DEFAULTS = Defaults(partial_rotary=0.5, eps=1e-5, context_length=131_072)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a ``config.json``; the multi-token prediction modules are left out."""
    mixer = replace(
        dense_attention(fields, DEFAULTS),
        qkv_bias=fields.flag("attention_bias", False),
        qk_norm="head" if fields.flag("use_qk_norm", False) else "none",
    )
    num_layers = fields.integer("num_hidden_layers")
    num_dense = fields.integer("first_k_dense_replace", 1)
    sparse = [index >= num_dense for index in range(num_layers)]
    dense = gated_mlp(fields, "intermediate_size")
    layers = mixed_layers([mixer] * num_layers, _experts(fields), dense, sparse)
    return decoder_spec(MODEL_TYPE, fields, layers, DEFAULTS)


def _experts(fields: Fields) -> MoESpec:
    expert = gated_mlp(fields, "moe_intermediate_size")
    num_shared = fields.integer("n_shared_experts", 1)
    shared = MLPSpec(expert.hidden_dim * num_shared, expert.activation) if num_shared else None
    return MoESpec(
        num_experts=fields.integer("n_routed_experts", 128),
        top_k=fields.integer("num_experts_per_tok", 8),
        expert=expert,
        router=RouterSpec(
            score="sigmoid",
            normalise=fields.flag("norm_topk_prob", True),
            weight_scale=fields.number("routed_scaling_factor", 1.0),
            num_groups=fields.integer("n_group", 1),
            num_kept_groups=fields.integer("topk_group", 1),
            group_score="top2_sum",
            correction_bias=True,
        ),
        shared=shared,
    )


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    moe, first = experts_of(spec), attentions(spec)[0]
    sparse = sparse_layers(spec)
    num_dense = sparse.count(False)
    if any(sparse[:num_dense]):
        raise UnsupportedError("GLM-4.5 has its dense layers first")
    shared_dim = 0 if moe.shared is None else moe.shared.hidden_dim
    return {
        **decoder_config(spec, "Glm4MoeForCausalLM"),
        **attention_config(spec),
        **activation_config(spec),
        "attention_bias": first.qkv_bias,
        "use_qk_norm": first.qk_norm == "head",
        "intermediate_size": dense_width(spec),
        "first_k_dense_replace": num_dense,
        "moe_intermediate_size": moe.expert.hidden_dim,
        "n_routed_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "n_shared_experts": shared_dim // moe.expert.hidden_dim,
        "n_group": moe.router.num_groups,
        "topk_group": moe.router.num_kept_groups,
        "norm_topk_prob": moe.router.normalise,
        "routed_scaling_factor": moe.router.weight_scale,
        "num_nextn_predict_layers": spec.num_mtp_layers,
        "output_router_logits": False,
    }
