"""Tensor names of Qwen3-Next, Qwen3.5, Kimi Linear and LFM2: recurrent layers beside attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from weft.models.families.deepseek import latent_rules
from weft.models.hf_keys import (
    Rule,
    affine,
    attention_rules,
    decoder_rules,
    gated_mlp_rules,
    merged,
    moe_rules,
    pre_norm_rules,
    rename,
)
from weft.models.hf_layouts import GroupedRows, Inserted
from weft.spec import (
    AttentionSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LayerSpec,
    MLASpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    ShortConvSpec,
)

_QWEN_EXPERTS = partial(moe_rules, shared="shared_expert")
_KIMI_EXPERTS = partial(moe_rules, theirs="block_sparse_moe.", projections=("w1", "w3", "w2"))
Projections = Callable[[GatedDeltaNetSpec], tuple[Rule, ...]]
# A filter per channel is [channels, 1, taps] in their files.
_TAPS = Inserted((1,))


def qwen3_next(spec: ModelSpec) -> tuple[Rule, ...]:
    """Qwen3-Next: one matrix for q, k, v, z and one for b, a, both group by group."""
    return decoder_rules(spec, lambda layer: _qwen_layer(layer, _grouped_projections))


def qwen3_5(spec: ModelSpec) -> tuple[Rule, ...]:
    """Qwen3.5, dense or with experts: z, b and a have matrices of their own."""
    return decoder_rules(spec, lambda layer: _qwen_layer(layer, _plain_projections))


def kimi_linear(spec: ModelSpec) -> tuple[Rule, ...]:
    """Kimi Linear under the names of its published files."""
    return decoder_rules(spec, _kimi_layer)


def lfm2(spec: ModelSpec) -> tuple[Rule, ...]:
    """LFM2."""
    return decoder_rules(spec, _lfm2_layer, norm="model.embedding_norm")


def _qwen_layer(layer: LayerSpec, projections: Projections) -> tuple[Rule, ...]:
    mixer = layer.mixer
    if isinstance(mixer, GatedDeltaNetSpec):
        mixer_rules = _delta_net(projections(mixer))
    else:
        assert isinstance(mixer, AttentionSpec)
        mixer_rules = attention_rules(mixer)
    return (*pre_norm_rules(), *mixer_rules, *_ffn_rules(layer, _QWEN_EXPERTS))


def _ffn_rules(
    layer: LayerSpec, experts: Callable[[MoESpec], tuple[Rule, ...]]
) -> tuple[Rule, ...]:
    if isinstance(layer.ffn, MoESpec):
        return experts(layer.ffn)
    assert isinstance(layer.ffn, MLPSpec)
    return gated_mlp_rules(layer.ffn)


def _delta_net(projections: tuple[Rule, ...]) -> tuple[Rule, ...]:
    rules = (
        *projections,
        rename("conv.weight", "conv1d.weight", _TAPS),
        rename("a_log", "A_log"),
        rename("dt_bias", "dt_bias"),
        rename("norm.weight", "norm.weight"),
        rename("out.weight", "out_proj.weight"),
    )
    return tuple(rule.under("mixer.", "linear_attn.") for rule in rules)


def _grouped_projections(spec: GatedDeltaNetSpec) -> tuple[Rule, ...]:
    heads = spec.num_value_heads // spec.num_key_heads
    values = heads * spec.value_dim
    qkvz = GroupedRows(spec.num_key_heads, (spec.key_dim, spec.key_dim, values, values))
    return (
        rename("qkvz.weight", "in_proj_qkvz.weight", qkvz),
        rename("ba.weight", "in_proj_ba.weight", GroupedRows(spec.num_key_heads, (heads, heads))),
    )


def _plain_projections(spec: GatedDeltaNetSpec) -> tuple[Rule, ...]:
    values = spec.num_value_heads * spec.value_dim
    heads = (spec.num_value_heads, spec.num_value_heads)
    return (
        *merged("qkvz", ("in_proj_qkv", "in_proj_z"), (spec.conv_dim, values), bias=False),
        *merged("ba", ("in_proj_b", "in_proj_a"), heads, bias=False),
    )


def _kimi_layer(layer: LayerSpec) -> tuple[Rule, ...]:
    mixer = layer.mixer
    if isinstance(mixer, KimiDeltaSpec):
        mixer_rules = _kimi_delta(mixer)
    else:
        assert isinstance(mixer, MLASpec)
        mixer_rules = latent_rules(mixer)
    return (*pre_norm_rules(), *mixer_rules, *_ffn_rules(layer, _KIMI_EXPERTS))


def _kimi_delta(spec: KimiDeltaSpec) -> tuple[Rule, ...]:
    inner = (spec.num_heads * spec.head_dim,) * 3
    low = (spec.rank, spec.rank, spec.num_heads)
    convs = tuple(f"{part}_conv1d.weight" for part in "qkv")
    rules = (
        *merged("qkv", ("q_proj", "k_proj", "v_proj"), inner, bias=False),
        *merged("low", ("f_a_proj", "g_a_proj", "b_proj"), low, bias=False),
        rename("forget.weight", "f_b_proj.weight"),
        rename("gate.weight", "g_b_proj.weight"),
        Rule("conv.weight", convs, inner, layout=_TAPS),
        rename("a_log", "A_log", Inserted((0, 1, 3))),
        rename("dt_bias", "dt_bias"),
        rename("norm.weight", "o_norm.weight"),
        rename("out.weight", "o_proj.weight"),
    )
    return tuple(rule.under("mixer.", "self_attn.") for rule in rules)


def _lfm2_layer(layer: LayerSpec) -> tuple[Rule, ...]:
    mixer, ffn = layer.mixer, layer.ffn
    assert isinstance(ffn, MLPSpec)
    if isinstance(mixer, ShortConvSpec):
        mixer_rules = _short_conv(mixer)
    else:
        assert isinstance(mixer, AttentionSpec)
        mixer_rules = _lfm2_attention(mixer)
    width = (ffn.hidden_dim, ffn.hidden_dim)
    return (
        *pre_norm_rules("operator_norm", "ffn_norm"),
        *mixer_rules,
        *merged("ffn.gate_up", ("feed_forward.w1", "feed_forward.w3"), width, bias=False),
        rename("ffn.down.weight", "feed_forward.w2.weight"),
    )


def _lfm2_attention(spec: AttentionSpec) -> tuple[Rule, ...]:
    names = tuple(f"self_attn.{part}_proj" for part in "qkv")
    return (
        *merged("mixer.qkv", names, spec.qkv_rows, bias=False),
        rename("mixer.out.weight", "self_attn.out_proj.weight"),
        *(
            rename(f"mixer.{part}_norm.weight", f"self_attn.{part}_layernorm.weight")
            for part in "qk"
        ),
    )


def _short_conv(spec: ShortConvSpec) -> tuple[Rule, ...]:
    rules = (
        *affine("in_proj", "in_proj", bias=spec.bias),
        *affine("conv", "conv", bias=spec.bias, layout=_TAPS),
        *affine("out", "out_proj", bias=spec.bias),
    )
    return tuple(rule.under("mixer.", "conv.") for rule in rules)
