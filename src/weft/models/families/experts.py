"""Tensor names of decoders with softmax attention and a mixture of experts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from weft.models.families.deepseek import mtp_rules
from weft.models.hf_keys import (
    Rule,
    attention_rules,
    decoder_rules,
    gated_mlp_rules,
    moe_rules,
    pre_norm_rules,
    rename,
)
from weft.models.hf_layouts import Alternating, Chain, Transposed
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec, MoESpec

MIXTRAL = partial(
    moe_rules,
    theirs="block_sparse_moe.",
    projections=("w1", "w3", "w2"),
    correction_bias="e_score_correction_bias",
)
QWEN = partial(moe_rules, shared="shared_expert")
# gpt-oss stores matrices for ``x W`` with gate and up in turn.
_GATE_UP = Chain((Transposed(), Alternating(2, axis=1)))


def mixtral(spec: ModelSpec) -> tuple[Rule, ...]:
    """Mixtral and MiniMax-M2."""
    return decoder_rules(spec, lambda layer: _layer(layer, MIXTRAL))


def qwen(spec: ModelSpec) -> tuple[Rule, ...]:
    """Qwen2-MoE and Qwen3-MoE."""
    return decoder_rules(spec, lambda layer: _layer(layer, QWEN))


def glm4_moe(spec: ModelSpec) -> tuple[Rule, ...]:
    """GLM-4.5: DeepSeek's experts and multi-token prediction around softmax attention."""

    def layer_rules(layer: LayerSpec) -> tuple[Rule, ...]:
        return _layer(layer, moe_rules)

    return (*decoder_rules(spec, layer_rules), *mtp_rules(spec, layer_rules))


def gpt_oss(spec: ModelSpec) -> tuple[Rule, ...]:
    """gpt-oss: all experts in one tensor."""
    return decoder_rules(spec, lambda layer: _layer(layer, _gpt_oss_experts))


def _layer(layer: LayerSpec, experts: Callable[[MoESpec], tuple[Rule, ...]]) -> tuple[Rule, ...]:
    mixer, ffn = layer.mixer, layer.ffn
    assert isinstance(mixer, AttentionSpec)
    assert isinstance(ffn, MLPSpec | MoESpec)
    ffn_rules = experts(ffn) if isinstance(ffn, MoESpec) else gated_mlp_rules(ffn)
    return (*pre_norm_rules(), *attention_rules(mixer), *ffn_rules)


def _gpt_oss_experts(spec: MoESpec) -> tuple[Rule, ...]:
    return (
        rename("ffn.router.weight", "mlp.router.weight"),
        rename("ffn.router.bias", "mlp.router.bias"),
        rename("ffn.experts.gate_up", "mlp.experts.gate_up_proj", _GATE_UP),
        rename("ffn.experts.gate_up_bias", "mlp.experts.gate_up_proj_bias", Alternating(2, axis=1)),
        rename("ffn.experts.down", "mlp.experts.down_proj", Transposed()),
        rename("ffn.experts.down_bias", "mlp.experts.down_proj_bias"),
    )
