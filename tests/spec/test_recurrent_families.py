"""``config.json`` of families with recurrent layers, in and out."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.spec.recurrent import PUBLISHED
from weft.core.errors import UnsupportedError
from weft.spec import (
    AttentionSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    Mamba2Spec,
    MambaSpec,
    MLASpec,
    MLPSpec,
    MoESpec,
)
from weft.spec.families import spec_from_hf, spec_to_hf


def kinds(spec) -> list[str]:
    return [type(layer.mixer).__name__ for layer in spec.layers]


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_written_is_read_again(name):
    spec = spec_from_hf(PUBLISHED[name])
    assert spec_from_hf(json.loads(json.dumps(spec_to_hf(spec)))) == spec


def test_qwen3_next_has_three_delta_nets_to_an_attention():
    spec = spec_from_hf(PUBLISHED["Qwen3-Next-80B-A3B"])
    assert kinds(spec)[:5] == ["GatedDeltaNetSpec"] * 3 + ["AttentionSpec", "GatedDeltaNetSpec"]
    assert kinds(spec).count("AttentionSpec") == 12
    attention, moe = spec.layers[3].mixer, spec.layers[0].ffn
    assert isinstance(attention, AttentionSpec)
    assert attention.rotary_dim == 64, "row R18: 64 of 256 dimensions rotate"
    assert attention.output_gate
    assert attention.qk_norm == "head"
    assert isinstance(moe, MoESpec)
    assert (moe.num_experts, moe.top_k, moe.shared, moe.shared_gate) == (
        512,
        10,
        MLPSpec(512),
        True,
    )
    assert spec.layers[0].mixer == GatedDeltaNetSpec(16, 32, 128, 128)
    assert spec.norm.zero_centred
    # 36 recurrent layers of 1,097,728 bytes in two-byte numbers (row R14).
    assert sum(2 * layer.mixer.state_values for layer in spec.layers) == 36 * 1_097_728


def test_kimi_linear_lists_its_layers_from_one():
    spec = spec_from_hf(PUBLISHED["Kimi-Linear-48B-A3B"])
    full = [i for i, layer in enumerate(spec.layers) if isinstance(layer.mixer, MLASpec)]
    assert full == [3, 7, 11, 15, 19, 23, 26]
    latent, delta = spec.layers[3].mixer, spec.layers[0].mixer
    assert latent.rotary is None
    assert delta == KimiDeltaSpec(32, 128)
    assert isinstance(spec.layers[0].ffn, MLPSpec)
    assert 2 * delta.state_values == 1_122_304, "row R15"


def test_the_text_part_of_qwen3_5_becomes_a_text_model():
    spec = spec_from_hf(PUBLISHED["Qwen3.5-27B"])
    assert spec.family == "qwen3_5_text"
    written = spec_to_hf(spec)
    assert written["architectures"] == ["Qwen3_5ForCausalLM"]
    assert "text_config" not in written


@pytest.mark.parametrize(
    ("stored", "limit"),
    [
        ([0.0, float("inf")], (0.0, float("inf"))),
        ([0.0, {"__float__": "Infinity"}], (0.0, float("inf"))),
        ([0.001, 0.1], (0.001, 0.1)),
        (None, (0.0, float("inf"))),
    ],
)
def test_mamba2_step_limits_come_in_three_spellings(stored, limit):
    spec = spec_from_hf({**PUBLISHED["Mamba-Codestral-7B"], "time_step_limit": stored})
    mixer = spec.layers[0].mixer
    assert isinstance(mixer, Mamba2Spec)
    assert mixer.time_step_limit == limit
    assert spec.layers[0].ffn is None


def test_mamba_is_mixers_only_and_tied():
    spec = spec_from_hf(PUBLISHED["Mamba-130M"])
    assert {layer.mixer for layer in spec.layers} == {MambaSpec(1536, 48)}
    assert {layer.ffn for layer in spec.layers} == {None}
    assert spec.tie_embeddings
    automatic = {**PUBLISHED["Mamba-130M"], "hidden_size": 100, "time_step_rank": "auto"}
    assert spec_from_hf(automatic).layers[0].mixer == MambaSpec(200, 7)


def test_falcon_mamba_normalises_what_it_selects_with():
    falcon = {**PUBLISHED["Mamba-130M"], "model_type": "falcon_mamba", "mixer_rms_eps": 1e-5}
    spec = spec_from_hf(falcon)
    assert spec.layers[0].mixer == MambaSpec(1536, 48, inner_norm_eps=1e-5)
    with pytest.raises(UnsupportedError, match="inner_norm_eps"):
        spec_to_hf(dataclasses.replace(spec, family="mamba"))


@pytest.mark.parametrize(
    ("width", "adjusted"), [({"block_ff_dim": 12288}, 8192), ({"block_ff_dim": 10752}, 7168)]
)
def test_lfm2_rounds_its_inner_width(width, adjusted):
    spec = spec_from_hf({**PUBLISHED["LFM2-1.2B"], **width})
    assert spec.layers[0].ffn == MLPSpec(adjusted)
    plain = spec_from_hf({**PUBLISHED["LFM2-1.2B"], **width, "block_auto_adjust_ff_dim": False})
    assert plain.layers[0].ffn == MLPSpec(width["block_ff_dim"])


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("Qwen3-Next-80B-A3B", "hidden_act", "gelu"),
        ("Qwen3-Next-80B-A3B", "layer_types", ["sliding_attention"] * 48),
        ("Kimi-Linear-48B-A3B", "mla_use_nope", False),
        ("Kimi-Linear-48B-A3B", "moe_router_activation_func", "softmax"),
        ("Kimi-Linear-48B-A3B", "layer_types", ["chunked_attention"] * 27),
        ("Mamba-Codestral-7B", "hidden_act", "gelu"),
        ("Mamba-130M", "hidden_act", "gelu"),
        ("RWKV-4-169M", "layer_norm_epsilon", 1e-3),
        ("LFM2-1.2B", "layer_types", ["linear_attention"] * 16),
        ("Qwen3.5-27B", "text_config", None),
    ],
)
def test_fields_that_cannot_be_expressed_are_named(name, field, value):
    with pytest.raises(UnsupportedError, match=field):
        spec_from_hf({**PUBLISHED[name], field: value})


def test_hybrids_without_either_kind_have_no_file():
    config = {**PUBLISHED["Qwen3-Next-80B-A3B"], "layer_types": ["linear_attention"] * 48}
    with pytest.raises(UnsupportedError, match="both Gated DeltaNet and attention"):
        spec_to_hf(spec_from_hf(config))
