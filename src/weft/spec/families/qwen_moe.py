"""Qwen1.5-MoE and Qwen2-MoE (arXiv:2407.10671), Qwen3-MoE (arXiv:2505.09388).

Qwen2-MoE has a gated shared expert and biases on queries, keys and values; Qwen3-MoE has neither
and normalises queries and keys. In both some layers may be dense.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.attention import AttentionSpec
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

QWEN2, QWEN3 = "qwen2_moe", "qwen3_moe"
DEFAULTS = Defaults(context_length=32_768)


def from_hf_qwen2(fields: Fields) -> ModelSpec:
    """Translate a Qwen2-MoE ``config.json``."""
    mixer = replace(dense_attention(fields, DEFAULTS), qkv_bias=fields.flag("qkv_bias", True))
    uses_window = fields.flag("use_sliding_window", False)
    last = fields.integer("max_window_layers", 28)
    kinds = fields.layer_types(
        [
            WINDOWED if uses_window and index % 2 == 0 and index < last else FULL
            for index in range(fields.integer("num_hidden_layers"))
        ]
    )
    window = fields.integer("sliding_window", 4096) if uses_window else None
    shared = gated_mlp(fields, "shared_expert_intermediate_size")
    return _spec(QWEN2, fields, windowed(mixer, kinds, window), shared)


def from_hf_qwen3(fields: Fields) -> ModelSpec:
    """Translate a Qwen3-MoE ``config.json``."""
    bias = fields.flag("attention_bias", False)
    mixer = dense_attention(fields, DEFAULTS)
    uses_window = fields.flag("use_sliding_window", False)
    window = fields.optional_integer("sliding_window", 4096) if uses_window else None
    mixer = replace(mixer, qkv_bias=bias, out_bias=bias, qk_norm="head", window=window)
    return _spec(QWEN3, fields, [mixer] * fields.integer("num_hidden_layers"), None)


def sparse_pattern(fields: Fields) -> list[bool]:
    """Return which layers have experts: every n-th, but for those named dense."""
    step = fields.integer("decoder_sparse_step", 1)
    dense = set(fields.config.get("mlp_only_layers") or ())
    num_layers = fields.integer("num_hidden_layers")
    return [index not in dense and (index + 1) % step == 0 for index in range(num_layers)]


def softmax_experts(fields: Fields, shared: MLPSpec | None, *, normalise: bool = False) -> MoESpec:
    """Read Qwen's mixture; ``normalise`` is what a missing ``norm_topk_prob`` means."""
    return MoESpec(
        # Published files say num_experts, files written by transformers 5 the other.
        num_experts=fields.integer("num_experts", fields.config.get("num_local_experts")),
        top_k=fields.integer("num_experts_per_tok"),
        expert=gated_mlp(fields, "moe_intermediate_size"),
        router=RouterSpec(normalise=fields.flag("norm_topk_prob", normalise)),
        shared=shared,
        shared_gate=shared is not None,
    )


def _spec(
    family: str, fields: Fields, mixers: list[AttentionSpec], shared: MLPSpec | None
) -> ModelSpec:
    moe = softmax_experts(fields, shared)
    dense = gated_mlp(fields, "intermediate_size")
    layers = mixed_layers(mixers, moe, dense, sparse_pattern(fields))
    return decoder_spec(family, fields, layers, DEFAULTS)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate either back to ``config.json``."""
    return {**_common(spec), **(_qwen2(spec) if spec.family == QWEN2 else _qwen3(spec))}


def experts_config(spec: ModelSpec) -> dict[str, Any]:
    """Write what ``softmax_experts`` and ``sparse_pattern`` read."""
    moe = experts_of(spec)
    return {
        **activation_config(spec),
        "intermediate_size": dense_width(spec),
        "moe_intermediate_size": moe.expert.hidden_dim,
        "num_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "norm_topk_prob": moe.router.normalise,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [i for i, sparse in enumerate(sparse_layers(spec)) if not sparse],
        "output_router_logits": False,
    }


def _common(spec: ModelSpec) -> dict[str, Any]:
    architecture = "Qwen2MoeForCausalLM" if spec.family == QWEN2 else "Qwen3MoeForCausalLM"
    return {
        **decoder_config(spec, architecture),
        **attention_config(spec),
        **experts_config(spec),
        "use_sliding_window": any(mixer.window is not None for mixer in attentions(spec)),
    }


def _qwen2(spec: ModelSpec) -> dict[str, Any]:
    shared = experts_of(spec).shared
    if shared is None:
        raise UnsupportedError("qwen2_moe has a gated shared expert", fix="use family qwen3_moe")
    return {
        **window_config(spec),
        "max_window_layers": spec.num_layers,
        "shared_expert_intermediate_size": shared.hidden_dim,
        "qkv_bias": attentions(spec)[0].qkv_bias,
    }


def _qwen3(spec: ModelSpec) -> dict[str, Any]:
    first = attentions(spec)[0]
    return {"attention_bias": first.qkv_bias, "sliding_window": first.window}
