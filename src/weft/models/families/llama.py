"""Llama's tensor names."""

from __future__ import annotations

from weft.models.hf_keys import Rule, gate_up_rows, qkv_rows
from weft.spec import ModelSpec

_ATTENTION = "model.layers.{layer}.self_attn."
_MLP = "model.layers.{layer}.mlp."


def rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map; biases and the head appear only where the specification has them."""
    kinds = ("weight", "bias")
    attention, mlp = spec.layers[0].mixer, spec.layers[0].ffn
    result = [
        Rule("embed.weight", ("model.embed_tokens.weight",)),
        Rule("norm.weight", ("model.norm.weight",)),
        Rule("layers.{layer}.mixer_norm.weight", ("model.layers.{layer}.input_layernorm.weight",)),
        Rule(
            "layers.{layer}.ffn_norm.weight",
            ("model.layers.{layer}.post_attention_layernorm.weight",),
        ),
    ]
    if not spec.tie_embeddings:
        result.append(Rule("head.weight", ("lm_head.weight",)))
    for kind in kinds[: 1 + attention.qkv_bias]:
        names = tuple(f"{_ATTENTION}{part}_proj.{kind}" for part in "qkv")
        result.append(Rule(f"layers.{{layer}}.mixer.qkv.{kind}", names, qkv_rows))
    for kind in kinds[: 1 + attention.out_bias]:
        result.append(Rule(f"layers.{{layer}}.mixer.out.{kind}", (f"{_ATTENTION}o_proj.{kind}",)))
    for kind in kinds[: 1 + mlp.bias]:
        names = tuple(f"{_MLP}{part}_proj.{kind}" for part in ("gate", "up"))
        result.append(Rule(f"layers.{{layer}}.ffn.gate_up.{kind}", names, gate_up_rows))
        result.append(Rule(f"layers.{{layer}}.ffn.down.{kind}", (f"{_MLP}down_proj.{kind}",)))
    return tuple(result)
