"""DeepSeek's tensor names, which Kimi K2 and GLM's latent models share."""

from __future__ import annotations

from weft.models.hf_keys import (
    LayerRules,
    Rule,
    affine,
    decoder_rules,
    gated_mlp_rules,
    merged,
    moe_rules,
    pre_norm_rules,
    rename,
)
from weft.spec import LayerSpec, MLASpec, MLPSpec, ModelSpec, MoESpec


def rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map, with the multi-token prediction modules that the model has."""
    return (*decoder_rules(spec, layer_rules), *mtp_rules(spec, layer_rules))


def layer_rules(layer: LayerSpec) -> tuple[Rule, ...]:
    """Return the key map of one layer."""
    mixer, ffn = layer.mixer, layer.ffn
    assert isinstance(mixer, MLASpec)
    assert isinstance(ffn, MLPSpec | MoESpec)
    ffn_rules = moe_rules(ffn) if isinstance(ffn, MoESpec) else gated_mlp_rules(ffn)
    return (*pre_norm_rules(), *latent_rules(mixer), *ffn_rules)


def latent_rules(spec: MLASpec, theirs: str = "self_attn.") -> tuple[Rule, ...]:
    """Latent attention and its indexer."""
    latent, rope = spec.kv_latent_dim, spec.rope_head_dim
    down, rows = (f"{theirs}kv_a_proj_with_mqa",), (latent + rope,)
    query = rename("mixer.query.weight", f"{theirs}q_proj.weight")
    result: list[Rule] = []
    if spec.query_latent_dim is not None:
        down, rows = (f"{theirs}q_a_proj", *down), (spec.query_latent_dim, *rows)
        query = rename("mixer.query.weight", f"{theirs}q_b_proj.weight")
        result += affine("mixer.query_norm", f"{theirs}q_a_layernorm", bias=False)
    result += [
        query,
        *merged("mixer.down", down, rows, bias=spec.bias),
        *affine("mixer.kv_norm", f"{theirs}kv_a_layernorm", bias=False),
        *affine("mixer.kv_up", f"{theirs}kv_b_proj", bias=False),
        *affine("mixer.out", f"{theirs}o_proj", bias=spec.bias),
    ]
    if spec.indexer is not None:
        result += [
            *affine("mixer.indexer.query", f"{theirs}indexer.wq_b", bias=False),
            *affine("mixer.indexer.key", f"{theirs}indexer.wk", bias=False),
            *affine("mixer.indexer.key_norm", f"{theirs}indexer.k_norm", bias=True),
            *affine("mixer.indexer.head_weights", f"{theirs}indexer.weights_proj", bias=False),
        ]
    return tuple(result)


def mtp_rules(spec: ModelSpec, layer_rules: LayerRules) -> tuple[Rule, ...]:
    """Multi-token prediction modules, which files number as layers behind the last one.

    Files may repeat embedding and output projection in each of them; they are the model's own, so
    they are neither read nor written here.
    """
    module = (
        *affine("embed_norm", "enorm", bias=False),
        *affine("hidden_norm", "hnorm", bias=False),
        *affine("project", "eh_proj", bias=False),
        *affine("norm", "shared_head.norm", bias=False),
        *(rule.under("block.", "") for rule in layer_rules(spec.layers[-1])),
    )
    return tuple(
        rule.under(f"mtp.{depth}.", f"model.layers.{spec.num_layers + depth}.")
        for depth in range(spec.num_mtp_layers)
        for rule in module
    )
