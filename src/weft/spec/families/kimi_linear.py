"""Kimi Linear (arXiv:2510.26692): three Kimi Delta Attention layers to a latent attention.

Latent attention has no positions; experts are routed as in DeepSeek-V3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.families.dense import FULL, Defaults, decoder_config, decoder_spec
from weft.spec.families.experts import experts_of, sparse_layers
from weft.spec.families.fields import Fields
from weft.spec.families.latent import latent_mixer, sigmoid_router
from weft.spec.ffn import MLPSpec, MoESpec
from weft.spec.latent import MLASpec
from weft.spec.model import LayerSpec, ModelSpec
from weft.spec.recurrent import KimiDeltaSpec

MODEL_TYPE = "kimi_linear"
LINEAR = "linear_attention"
DEFAULTS = Defaults(eps=1e-5, context_length=1_048_576)
# Published files call these fields what transformers calls the others.
ALIASES = {
    "model_max_length": "max_position_embeddings",
    "moe_renormalize": "norm_topk_prob",
    "num_expert_group": "n_group",
    "num_experts": "num_local_experts",
    "num_experts_per_token": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
}


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a Kimi Linear ``config.json``, published or written by transformers."""
    config = {"q_lora_rank": None, "routed_scaling_factor": 2.446, **fields.config}
    for theirs, name in ALIASES.items():
        if config.get(theirs) is not None:
            config[name] = config[theirs]
    fields = Fields(config)
    fields.require("hidden_act", "silu")
    fields.require("mla_use_nope", True)
    fields.require("moe_layer_freq", 1)
    fields.require("moe_router_activation_func", "sigmoid")
    fields.require("num_nextn_predict_layers", 0)
    latent = replace(latent_mixer(fields), rotary=None)
    mixers = {FULL: latent, LINEAR: _delta(fields)}
    dense, moe = MLPSpec(fields.integer("intermediate_size")), _experts(fields)
    layers = tuple(
        LayerSpec(mixers[kind], moe if sparse else dense)
        for kind, sparse in zip(_kinds(fields), _sparse(fields), strict=True)
    )
    return decoder_spec(MODEL_TYPE, fields, layers, DEFAULTS)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``, with the names of transformers."""
    mixers = [layer.mixer for layer in spec.layers]
    latent = next((m for m in mixers if isinstance(m, MLASpec)), None)
    delta = next((m for m in mixers if isinstance(m, KimiDeltaSpec)), None)
    if latent is None or delta is None:
        raise UnsupportedError(f"{spec.family} has both Kimi Delta and latent attention layers")
    sparse = sparse_layers(spec)
    kinds = [LINEAR if isinstance(mixer, KimiDeltaSpec) else FULL for mixer in mixers]
    config = {
        **decoder_config(spec, "KimiLinearForCausalLM"),
        **_experts_config(spec),
        "hidden_act": "silu",
        "num_attention_heads": latent.num_heads,
        "num_key_value_heads": latent.num_heads,
        "kv_lora_rank": latent.kv_latent_dim,
        "q_lora_rank": latent.query_latent_dim,
        "qk_nope_head_dim": latent.nope_head_dim,
        "qk_rope_head_dim": latent.rope_head_dim,
        "v_head_dim": latent.value_head_dim,
        "attention_bias": latent.bias,
        "mla_use_nope": True,
        "layer_types": kinds,
        "mlp_layer_types": ["sparse" if has_experts else "dense" for has_experts in sparse],
        "linear_num_heads": delta.num_heads,
        "linear_head_dim": delta.head_dim,
        "linear_conv_kernel_dim": delta.conv_kernel,
        "linear_attn_config": {
            "num_heads": delta.num_heads,
            "head_dim": delta.head_dim,
            "short_conv_kernel_size": delta.conv_kernel,
            "kda_layers": [i + 1 for i, kind in enumerate(kinds) if kind == LINEAR],
            "full_attn_layers": [i + 1 for i, kind in enumerate(kinds) if kind == FULL],
        },
    }
    return {**config, "model_max_length": spec.context_length}


def _delta(fields: Fields) -> KimiDeltaSpec:
    nested = fields.config.get("linear_attn_config")
    names = ("num_heads", "head_dim", "short_conv_kernel_size")
    if not isinstance(nested, Mapping):
        names = ("linear_num_heads", "linear_head_dim", "linear_conv_kernel_dim")
        nested = fields.config
    heads, width, taps = names
    inner = Fields(nested)
    return KimiDeltaSpec(
        inner.integer(heads, 32), inner.integer(width, 128), inner.integer(taps, 4)
    )


def _kinds(fields: Fields) -> tuple[str, ...]:
    """Return the kind of every layer; published files list them by number, from 1."""
    num_layers = fields.integer("num_hidden_layers")
    nested = fields.config.get("linear_attn_config") or {}
    default = [FULL if i and i % 4 == 0 else LINEAR for i in range(num_layers)]
    if "full_attn_layers" in nested:
        full = set(nested["full_attn_layers"])
        default = [FULL if i + 1 in full else LINEAR for i in range(num_layers)]
    kinds = fields.layer_types(default)
    for kind in set(kinds) - {FULL, LINEAR}:
        raise UnsupportedError(
            f"config.json: layer_types has {kind!r}; this family supports {FULL!r}, {LINEAR!r}"
        )
    return kinds


def _sparse(fields: Fields) -> list[bool]:
    """Return which layers have experts; published files say how many of the first have none."""
    num_layers = fields.integer("num_hidden_layers")
    num_dense = fields.integer("first_k_dense_replace", 1)
    kinds = fields.config.get("mlp_layer_types")
    if kinds is None:
        return [index >= num_dense for index in range(num_layers)]
    return [kind == "sparse" for kind in kinds]


def _experts(fields: Fields) -> MoESpec:
    width = fields.integer("moe_intermediate_size", 1024)
    return MoESpec(
        num_experts=fields.integer("num_local_experts", 256),
        top_k=fields.integer("num_experts_per_tok", 8),
        expert=MLPSpec(width),
        router=sigmoid_router(fields),
        shared=MLPSpec(width * fields.integer("n_shared_experts", 1)),
    )


def _experts_config(spec: ModelSpec) -> dict[str, Any]:
    moe = experts_of(spec)
    width = moe.expert.hidden_dim
    dense = next((layer.ffn for layer in spec.layers if isinstance(layer.ffn, MLPSpec)), moe.expert)
    return {
        "intermediate_size": dense.hidden_dim,
        "moe_intermediate_size": width,
        "num_experts": moe.num_experts,
        "num_experts_per_token": moe.top_k,
        "num_shared_experts": 0 if moe.shared is None else moe.shared.hidden_dim // width,
        "moe_renormalize": moe.router.normalise,
        "routed_scaling_factor": moe.router.weight_scale,
        "num_expert_group": moe.router.num_groups,
        "topk_group": moe.router.num_kept_groups,
        "moe_router_activation_func": "sigmoid",
    }
