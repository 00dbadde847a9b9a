"""How each kind of mixer and feed-forward part is spread over ranks.

One function per kind: its sizes on one rank, how its tensors are cut, and which outputs are addends
of the ranks. A part that cannot be shared is refused with the reason. A new mixer adds one
function and one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from weft.core.errors import UnsupportedError
from weft.models.cuts import Cut, PartPlan, Sharding, columns, prefixed, rows, shared_evenly
from weft.spec import (
    AttentionSpec,
    ChannelMixSpec,
    FFNSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    MixerSpec,
    MLASpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    RWKVSpec,
    ShortConvSpec,
)

ExpertSplit = Literal["width", "experts"]


def plan_mixer(spec: ModelSpec, layer: int, num_ranks: int) -> PartPlan[MixerSpec]:
    """Return how the mixer of a layer is spread over ranks.

    Raises:
        ConfigError: a number does not divide.
        UnsupportedError: the layer cannot be shared.
    """
    mixer = spec.layers[layer].mixer
    if spec.layers[layer].cross is not None:
        raise _refusal(layer, "attention to an encoder is not shared")
    if isinstance(mixer, AttentionSpec):
        if mixer.alibi:
            raise _refusal(layer, "ALiBi's slopes follow from the number of all heads")
        if mixer.qk_norm == "all_heads" and spec.norm.kind == "layer":
            raise _refusal(layer, "its LayerNorm spans all heads")
    if isinstance(mixer, LinearAttentionSpec) and (mixer.retention or mixer.lightning is not None):
        raise _refusal(layer, "its decays follow from the number of all heads")
    rule = MIXER_RULES.get(type(mixer))
    if rule is None:
        raise _refusal(layer, f"there is no rule for {type(mixer).__name__}")
    return rule(mixer, num_ranks)


def plan_ffn(
    spec: ModelSpec, layer: int, num_ranks: int, expert_split: ExpertSplit
) -> PartPlan[FFNSpec] | None:
    """Return how the feed-forward part of a layer is spread over ranks; none if it has none.

    Raises:
        ConfigError: a number does not divide.
        UnsupportedError: the layer cannot be shared.
    """
    ffn = spec.layers[layer].ffn
    if ffn is None:
        return None
    if isinstance(ffn, MLPSpec):
        return _mlp(ffn, num_ranks)
    if isinstance(ffn, ChannelMixSpec):
        return _channel_mix(ffn, num_ranks)
    if expert_split == "width":
        return _expert_width(ffn, num_ranks)
    if ffn.router.kind in ("soft", "expert_choice"):
        raise _refusal(layer, f"{ffn.router.kind} routing gives every expert tokens by itself")
    return _whole_experts(ffn, num_ranks)


def _refusal(layer: int, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"layer {layer} cannot be shared by several ranks: {reason}", fix="use one rank"
    )


def _attention(spec: AttentionSpec, num_ranks: int) -> PartPlan[AttentionSpec]:
    num_heads = shared_evenly("query heads", spec.num_heads, num_ranks)
    num_kv_heads = shared_evenly("key-value heads", spec.num_kv_heads, num_ranks, may_repeat=True)
    queries, heads = Cut(spec.query_dim, spec.num_heads), Cut(spec.num_heads, spec.num_heads)
    keys = Cut(spec.kv_dim, spec.num_kv_heads)
    merged = (Cut(spec.qkv_rows[0], spec.num_heads), keys, keys)[: len(spec.qkv_rows)]
    tensors = rows("qkv", *merged, bias=spec.qkv_bias)
    tensors |= columns("out", queries, bias=spec.out_bias)
    tensors |= {"sinks": Sharding(0, (heads,))} if spec.sinks else {}
    norms: tuple[str, ...] = ()
    if spec.qk_norm == "all_heads":
        norms = ("q_norm", "k_norm") if spec.kv_source is None else ("q_norm",)
        tensors |= {**rows("q_norm", queries), **rows("k_norm", keys)}
    local = replace(spec, num_heads=num_heads, num_kv_heads=num_kv_heads)
    return PartPlan(local, tensors, ("out",), norms)


def _latent_attention(spec: MLASpec, num_ranks: int) -> PartPlan[MLASpec]:
    """Heads are shared; the latents, which all heads read, are made and kept by every rank."""
    heads = spec.num_heads
    values = Cut(heads * spec.value_head_dim, heads)
    keys_and_values = Cut(heads * (spec.nope_head_dim + spec.value_head_dim), heads)
    tensors = rows("query", Cut(heads * spec.head_dim, heads)) | rows("kv_up", keys_and_values)
    tensors |= columns("out", values, bias=spec.bias)
    tensors |= rows("gate", values) if spec.output_gate else {}
    local = replace(spec, num_heads=shared_evenly("heads", heads, num_ranks))
    return PartPlan(local, tensors, ("out",))


def _linear_attention(spec: LinearAttentionSpec, num_ranks: int) -> PartPlan[LinearAttentionSpec]:
    heads = spec.num_heads
    keys, values = Cut(heads * spec.key_dim, heads), Cut(heads * spec.value_dim, heads)
    gate = (values,) if spec.output_gate else ()
    tensors = rows("qkv", keys, keys, values, *gate) | columns("out", values)
    tensors |= rows("forget", keys, bias=True) if spec.gate_rank is not None else {}
    local = replace(spec, num_heads=shared_evenly("heads", heads, num_ranks))
    return PartPlan(local, tensors, ("out",))


def _gated_delta_net(spec: GatedDeltaNetSpec, num_ranks: int) -> PartPlan[GatedDeltaNetSpec]:
    keys = Cut(spec.num_key_heads * spec.key_dim, spec.num_key_heads)
    values = Cut(spec.num_value_heads * spec.value_dim, spec.num_value_heads)
    heads = Cut(spec.num_value_heads, spec.num_value_heads)
    tensors = rows("qkvz", keys, keys, values, values) | rows("ba", heads, heads)
    tensors |= rows("conv", keys, keys, values) | columns("out", values)
    tensors |= dict.fromkeys(("a_log", "dt_bias"), Sharding(0, (heads,)))
    num_keys = shared_evenly("key heads", spec.num_key_heads, num_ranks, may_repeat=True)
    num_values = shared_evenly("value heads", spec.num_value_heads, num_ranks)
    local = replace(spec, num_key_heads=num_keys, num_value_heads=num_values)
    return PartPlan(local, tensors, ("out",))


def _kimi_delta(spec: KimiDeltaSpec, num_ranks: int) -> PartPlan[KimiDeltaSpec]:
    heads = Cut(spec.num_heads, spec.num_heads)
    inner = Cut(spec.num_heads * spec.head_dim, spec.num_heads)
    tensors = rows("qkv", inner, inner, inner) | rows("conv", inner, inner, inner)
    tensors |= rows("low", Cut(2 * spec.rank), heads) | rows("forget", inner) | rows("gate", inner)
    tensors |= {"a_log": Sharding(0, (heads,)), "dt_bias": Sharding(0, (inner,))}
    tensors |= columns("out", inner)
    num_heads = shared_evenly("heads", spec.num_heads, num_ranks)
    return PartPlan(replace(spec, num_heads=num_heads), tensors, ("out",))


def _mamba(spec: MambaSpec, num_ranks: int) -> PartPlan[MambaSpec]:
    """Channels are shared; step sizes, B and C are made of all of them, hence a second sum."""
    inner = Cut(spec.inner_dim, spec.inner_dim)
    tensors = rows("in_proj", inner, inner, bias=spec.bias) | rows("step", inner)
    tensors |= rows("conv", inner, bias=spec.conv_bias) | columns("x_proj", inner)
    tensors |= dict.fromkeys(("dt_bias", "a_log", "skip"), Sharding(0, (inner,)))
    tensors |= columns("out", inner, bias=spec.bias)
    inner_dim = shared_evenly("channels", spec.inner_dim, num_ranks)
    return PartPlan(replace(spec, inner_dim=inner_dim), tensors, ("x_proj", "out"))


def _mamba2(spec: Mamba2Spec, num_ranks: int) -> PartPlan[Mamba2Spec]:
    """Heads are shared by whole groups, each of which has its own norm."""
    inner = Cut(spec.inner_dim, spec.num_heads)
    groups = Cut(spec.num_groups * spec.state_dim, spec.num_groups)
    heads = Cut(spec.num_heads, spec.num_heads)
    tensors = rows("in_proj", inner, inner, groups, groups, heads, bias=spec.bias)
    tensors |= rows("conv", inner, groups, groups, bias=spec.conv_bias) | rows("norm", inner)
    tensors |= dict.fromkeys(("a_log", "dt_bias", "skip"), Sharding(0, (heads,)))
    tensors |= columns("out", inner, bias=spec.bias)
    num_groups = shared_evenly("groups of heads", spec.num_groups, num_ranks)
    num_heads = shared_evenly("heads", spec.num_heads, num_ranks)
    return PartPlan(replace(spec, num_heads=num_heads, num_groups=num_groups), tensors, ("out",))


def _rwkv(spec: RWKVSpec, num_ranks: int) -> PartPlan[RWKVSpec]:
    channels = Cut(spec.attention_dim, spec.attention_dim)
    tensors = columns("out", channels)
    tensors |= dict.fromkeys(("decay", "bonus"), Sharding(0, (channels,)))
    for name in ("key", "value", "receptance"):
        tensors |= rows(name, channels)
    attention_dim = shared_evenly("channels", spec.attention_dim, num_ranks)
    return PartPlan(replace(spec, attention_dim=attention_dim), tensors, ("out",))


def _matrix_rwkv(spec: MatrixRWKVSpec, num_ranks: int) -> PartPlan[MatrixRWKVSpec]:
    heads, inner = Cut(spec.num_heads, spec.num_heads), Cut(spec.inner_dim, spec.num_heads)
    tensors = columns("out", inner) | rows("norm", inner, bias=True)
    tensors |= dict.fromkeys(("decay", "bonus"), Sharding(0, (heads,)))
    tensors |= {"decay_up": Sharding(0, (inner,))} if spec.decay_rank is not None else {}
    for name in ("receptance", "key", "value", "gate"):
        tensors |= rows(name, inner)
    num_heads = shared_evenly("heads", spec.num_heads, num_ranks)
    return PartPlan(replace(spec, num_heads=num_heads), tensors, ("out",))


def _short_conv(spec: ShortConvSpec, num_ranks: int) -> PartPlan[ShortConvSpec]:
    channels = Cut(spec.dim, spec.dim)
    tensors = rows("in_proj", channels, channels, channels, bias=spec.bias)
    tensors |= rows("conv", channels, bias=spec.bias) | columns("out", channels, bias=spec.bias)
    dim = shared_evenly("channels", spec.dim, num_ranks)
    return PartPlan(replace(spec, dim=dim), tensors, ("out",))


def _mlp(spec: MLPSpec, num_ranks: int) -> PartPlan[MLPSpec]:
    return PartPlan(_narrower(spec, num_ranks), _mlp_tensors(spec), ("down",))


def _channel_mix(spec: ChannelMixSpec, num_ranks: int) -> PartPlan[ChannelMixSpec]:
    inner = Cut(spec.hidden_dim, spec.hidden_dim)
    hidden_dim = shared_evenly("feed-forward channels", spec.hidden_dim, num_ranks)
    tensors = rows("up", inner) | columns("down", inner)
    return PartPlan(replace(spec, hidden_dim=hidden_dim), tensors, ("down",))


def _expert_width(spec: MoESpec, num_ranks: int) -> PartPlan[MoESpec]:
    """Every rank has a part of the width of every expert."""
    inner = Cut(spec.expert.hidden_dim, spec.expert.hidden_dim)
    first, cuts = ("gate_up", (inner, inner)) if spec.expert.gated else ("up", (inner,))
    tensors = {f"experts.{first}": Sharding(1, cuts), "experts.down": Sharding(2, (inner,))}
    if spec.expert.bias:
        tensors[f"experts.{first}_bias"] = Sharding(1, cuts)
        tensors["experts.down_bias"] = Sharding(first_only=True)
    expert = _narrower(spec.expert, num_ranks)
    return _with_shared(replace(spec, expert=expert), tensors, num_ranks)


def _whole_experts(spec: MoESpec, num_ranks: int) -> PartPlan[MoESpec]:
    """Every rank has some experts; the router, which every rank has, knows all of them."""
    shared_evenly("experts", spec.num_experts, num_ranks)
    experts = Sharding(0, (Cut(spec.num_experts, spec.num_experts),))
    first = "gate_up" if spec.expert.gated else "up"
    tensors = dict.fromkeys((f"experts.{first}", "experts.down"), experts)
    if spec.expert.bias:
        tensors |= dict.fromkeys((f"experts.{first}_bias", "experts.down_bias"), experts)
    return replace(_with_shared(spec, tensors, num_ranks), experts=("experts",))


def _with_shared(local: MoESpec, tensors: dict[str, Sharding], num_ranks: int) -> PartPlan[MoESpec]:
    """Cut the expert of all tokens by its width; it joins the one sum of the whole mixture."""
    if local.shared is not None:
        tensors = tensors | prefixed("shared.", _mlp_tensors(local.shared))
        local = replace(local, shared=_narrower(local.shared, num_ranks))
    return PartPlan(local, tensors, ("",))


def _mlp_tensors(spec: MLPSpec) -> dict[str, Sharding]:
    inner = Cut(spec.hidden_dim, spec.hidden_dim)
    name, cuts = ("gate_up", (inner, inner)) if spec.gated else ("up", (inner,))
    return rows(name, *cuts, bias=spec.bias) | columns("down", inner, bias=spec.bias)


def _narrower(spec: MLPSpec, num_ranks: int) -> MLPSpec:
    hidden_dim = shared_evenly("feed-forward channels", spec.hidden_dim, num_ranks)
    return replace(spec, hidden_dim=hidden_dim)


MIXER_RULES: dict[type, Callable[[Any, int], PartPlan[Any]]] = {
    AttentionSpec: _attention,
    MLASpec: _latent_attention,
    LinearAttentionSpec: _linear_attention,
    GatedDeltaNetSpec: _gated_delta_net,
    KimiDeltaSpec: _kimi_delta,
    MambaSpec: _mamba,
    Mamba2Spec: _mamba2,
    RWKVSpec: _rwkv,
    MatrixRWKVSpec: _matrix_rwkv,
    ShortConvSpec: _short_conv,
}
