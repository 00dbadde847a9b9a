"""What families with latent attention and DeepSeek's experts share in ``config.json``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from weft.core.errors import UnsupportedError
from weft.spec.families.dense import ACTIVATIONS, Defaults, decoder_config, decoder_spec
from weft.spec.families.experts import dense_width, gated_mlp, mixed_layers, sparse_layers
from weft.spec.families.fields import Fields
from weft.spec.families.rotary import rotary_to_hf
from weft.spec.ffn import MLPSpec, MoESpec, RouterSpec
from weft.spec.latent import IndexerSpec, MLASpec
from weft.spec.model import ModelSpec

# The reference code leaves the norms of both latents at their default.
LATENT_NORM_EPS = 1e-6
MTP_FIELD = "num_nextn_predict_layers"


def latent_mixer(
    fields: Fields,
    *,
    layout: Literal["half", "interleaved"] = "interleaved",
    indexer: IndexerSpec | None = None,
) -> MLASpec:
    """Read the attention; a null ``q_lora_rank`` projects queries directly."""
    rope_head_dim = fields.integer("qk_rope_head_dim", 64)
    rotary = fields.rotary(head_dim=rope_head_dim)
    if rotary.dim is not None:
        raise UnsupportedError(
            f"config.json: rotary positions turn {rotary.dim} of qk_rope_head_dim {rope_head_dim} "
            "dimensions; this family turns all of them"
        )
    return MLASpec(
        num_heads=fields.integer("num_attention_heads"),
        kv_latent_dim=fields.integer("kv_lora_rank", 512),
        nope_head_dim=fields.integer("qk_nope_head_dim", 128),
        rope_head_dim=rope_head_dim,
        value_head_dim=fields.integer("v_head_dim", 128),
        query_latent_dim=fields.optional_integer("q_lora_rank", 1536),
        rotary=replace(rotary, layout=layout),
        bias=fields.flag("attention_bias", False),
        latent_norm_eps=LATENT_NORM_EPS,
        indexer=indexer,
    )


def latent_spec(
    family: str,
    fields: Fields,
    mixer: MLASpec,
    router: RouterSpec,
    *,
    num_dense: int,
    num_shared: int,
    defaults: Defaults,
) -> ModelSpec:
    """Build the model; dense layers and shared experts are the family's defaults."""
    fields.require("mlp_bias", False)
    sparse = _sparse(fields, num_dense)
    moe = _experts(fields, router, num_shared) if any(sparse) else None
    dense = None if all(sparse) else gated_mlp(fields, "intermediate_size")
    layers = mixed_layers([mixer] * len(sparse), moe, dense, sparse)
    return decoder_spec(family, fields, layers, defaults)


def sigmoid_router(fields: Fields) -> RouterSpec:
    """Read DeepSeek-V3's routing: sigmoid scores, a bias that balances, limited to groups."""
    fields.require("scoring_func", "sigmoid")
    fields.require("topk_method", "noaux_tc")
    return RouterSpec(
        score="sigmoid",
        normalise=fields.flag("norm_topk_prob", True),
        weight_scale=fields.number("routed_scaling_factor", 2.5),
        num_groups=fields.integer("n_group", 1),
        num_kept_groups=fields.integer("topk_group", 1),
        group_score="top2_sum",
        correction_bias=True,
    )


def latent_config(spec: ModelSpec, architecture: str) -> dict[str, Any]:
    """Write the fields that ``latent_mixer`` and ``latent_spec`` read."""
    mixer, sparse = attention_of(spec), sparse_layers(spec)
    rotary = {} if mixer.rotary is None else rotary_to_hf(mixer.rotary)
    return {
        **decoder_config(spec, architecture),
        **rotary,
        **_experts_to_hf(spec),
        "hidden_act": _activation_to_hf(spec),
        "intermediate_size": dense_width(spec),
        "num_attention_heads": mixer.num_heads,
        "num_key_value_heads": mixer.num_heads,
        "kv_lora_rank": mixer.kv_latent_dim,
        "q_lora_rank": mixer.query_latent_dim,
        "qk_nope_head_dim": mixer.nope_head_dim,
        "qk_rope_head_dim": mixer.rope_head_dim,
        "v_head_dim": mixer.value_head_dim,
        "attention_bias": mixer.bias,
        "attention_dropout": 0.0,
        "first_k_dense_replace": sparse.count(False),
        "mlp_layer_types": ["sparse" if has_experts else "dense" for has_experts in sparse],
    }


def attention_of(spec: ModelSpec) -> MLASpec:
    """Return the first layer's attention.

    Raises:
        UnsupportedError: it is not latent.
    """
    mixer = spec.layers[0].mixer
    if not isinstance(mixer, MLASpec):
        raise UnsupportedError(f"{spec.family} has latent attention in every layer")
    return mixer


def router_of(spec: ModelSpec) -> RouterSpec:
    """Return how tokens choose experts; any rule where no layer has experts."""
    moe = _first_experts(spec)
    return RouterSpec() if moe is None else moe.router


def _first_experts(spec: ModelSpec) -> MoESpec | None:
    return next((layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoESpec)), None)


def _sparse(fields: Fields, num_dense: int) -> list[bool]:
    """Return for each layer whether it has experts."""
    num_layers = fields.integer("num_hidden_layers")
    kinds = fields.config.get("mlp_layer_types")
    if kinds is None:
        num_dense = fields.integer("first_k_dense_replace", num_dense)
        return [index >= num_dense for index in range(num_layers)]
    if len(kinds) != num_layers or not set(kinds) <= {"dense", "sparse"}:
        raise UnsupportedError(
            f"config.json: mlp_layer_types is {kinds!r}; 'dense' or 'sparse' is needed for each "
            f"of {num_layers} layers"
        )
    return [kind == "sparse" for kind in kinds]


def _experts(fields: Fields, router: RouterSpec, num_shared: int) -> MoESpec:
    fields.require("moe_layer_freq", 1)
    expert = gated_mlp(fields, "moe_intermediate_size")
    shared_dim = expert.hidden_dim * fields.integer("n_shared_experts", num_shared)
    return MoESpec(
        num_experts=fields.integer("n_routed_experts"),
        top_k=fields.integer("num_experts_per_tok"),
        expert=expert,
        router=router,
        shared=MLPSpec(shared_dim, expert.activation) if shared_dim else None,
    )


def _activation_to_hf(spec: ModelSpec) -> str:
    ffn = spec.layers[0].ffn
    mlp = ffn.expert if isinstance(ffn, MoESpec) else ffn
    if not isinstance(mlp, MLPSpec):
        raise UnsupportedError(f"{spec.family} has a feed-forward part in every layer")
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return names.get(mlp.activation, mlp.activation)


def _experts_to_hf(spec: ModelSpec) -> dict[str, Any]:
    moe = _first_experts(spec)
    if moe is None:
        return {}
    shared_dim = 0 if moe.shared is None else moe.shared.hidden_dim
    return {
        "n_routed_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "moe_intermediate_size": moe.expert.hidden_dim,
        "n_shared_experts": shared_dim // moe.expert.hidden_dim,
        "moe_layer_freq": 1,
        "n_group": moe.router.num_groups,
        "topk_group": moe.router.num_kept_groups,
        "norm_topk_prob": moe.router.normalise,
        "routed_scaling_factor": moe.router.weight_scale,
    }
