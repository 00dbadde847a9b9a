"""Families with latent attention: published configs, the way back, refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.spec.deepseek import DEEPSEEK_V2, DEEPSEEK_V3, DEEPSEEK_V32, PUBLISHED
from weft.core.errors import ConfigError, UnsupportedError
from weft.spec import IndexerSpec, MLASpec, MLPSpec, ModelSpec, MoESpec, RotarySpec
from weft.spec.families import spec_from_hf, spec_to_hf, with_mtp


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_config_survives_the_way_back(name: str) -> None:
    spec = spec_from_hf(PUBLISHED[name])
    assert spec_from_hf(spec_to_hf(spec)) == spec


def test_layers_of_deepseek_v3() -> None:
    spec = spec_from_hf(DEEPSEEK_V3)
    assert [type(layer.ffn) for layer in spec.layers] == [MLPSpec] * 3 + [MoESpec] * 58
    assert spec.cache_values_per_token == 61 * 576
    moe = spec.layers[-1].ffn
    assert isinstance(moe, MoESpec)
    assert (moe.num_experts, moe.top_k, moe.shared) == (256, 8, MLPSpec(2048))
    assert (moe.router.num_groups, moe.router.num_kept_groups) == (8, 4)
    assert moe.router.correction_bias


def test_indexer_of_deepseek_v32_adds_its_key_to_the_cache() -> None:
    spec = spec_from_hf(DEEPSEEK_V32)
    assert dict(spec.layers[0].token_cache) == {"latent": (576,), "index_keys": (128,)}


def test_modules_of_multi_token_prediction_are_there_only_when_asked_for() -> None:
    spec = spec_from_hf(DEEPSEEK_V3)
    assert spec.num_mtp_layers == 0
    assert with_mtp(spec, DEEPSEEK_V3).num_mtp_layers == 1
    with pytest.raises(UnsupportedError, match="num_nextn_predict_layers"):
        with_mtp(spec, DEEPSEEK_V2)


@pytest.mark.parametrize(
    ("base", "field", "value"),
    [
        (DEEPSEEK_V2, "scoring_func", "sigmoid"),
        (DEEPSEEK_V2, "norm_topk_prob", True),
        (DEEPSEEK_V2, "topk_method", "noaux_tc"),
        (DEEPSEEK_V3, "scoring_func", "softmax"),
        (DEEPSEEK_V3, "topk_method", "greedy"),
        (DEEPSEEK_V3, "moe_layer_freq", 2),
        (DEEPSEEK_V3, "hidden_act", "softplus"),
        (DEEPSEEK_V3, "mlp_layer_types", ["dense"] * 3),
        (DEEPSEEK_V3, "mlp_layer_types", ["dense", "soft"] + ["sparse"] * 59),
        (DEEPSEEK_V3, "partial_rotary_factor", 0.5),
        (DEEPSEEK_V32, "rope_interleave", False),
        (DEEPSEEK_V32, "index_topk_freq", 4),
        (DEEPSEEK_V32, "indexer_types", ["full", "shared"]),
    ],
)
def test_field_that_would_change_the_numbers_is_refused_by_name(
    base: dict[str, Any], field: str, value: object
) -> None:
    name = "rotary" if field == "partial_rotary_factor" else field
    with pytest.raises(UnsupportedError, match=name):
        spec_from_hf({**base, field: value})


def changed(spec: ModelSpec, **mixer: Any) -> ModelSpec:
    """Change the attention of every layer."""
    layers = (
        dataclasses.replace(layer, mixer=dataclasses.replace(layer.mixer, **mixer))
        for layer in spec.layers
    )
    return dataclasses.replace(spec, layers=tuple(layers))


@pytest.mark.parametrize(
    ("base", "mixer"),
    [
        (DEEPSEEK_V2, {"rotary": RotarySpec()}),
        (DEEPSEEK_V2, {"indexer": IndexerSpec(2, 64, 8)}),
        (DEEPSEEK_V3, {"indexer": IndexerSpec(2, 64, 8)}),
        (DEEPSEEK_V3, {"output_gate": True}),
        (DEEPSEEK_V3, {"rotary": None}),
        (DEEPSEEK_V3, {"scale": 0.5}),
        (DEEPSEEK_V3, {"latent_norm_eps": 1e-5}),
        (DEEPSEEK_V32, {"indexer": None}),
        (DEEPSEEK_V32, {"indexer": IndexerSpec(64, 128, 2048, rotary_layout="interleaved")}),
    ],
)
def test_specification_that_a_family_cannot_say_is_not_written(
    base: dict[str, Any], mixer: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedError):
        spec_to_hf(changed(spec_from_hf(base), **mixer))


def test_routing_that_a_family_cannot_say_is_not_written() -> None:
    spec = spec_from_hf(DEEPSEEK_V3)
    moe = spec.layers[-1].ffn
    assert isinstance(moe, MoESpec)
    other = dataclasses.replace(moe, router=dataclasses.replace(moe.router, score="softmax"))
    layers = tuple(
        dataclasses.replace(layer, ffn=other) if layer.ffn == moe else layer
        for layer in spec.layers
    )
    with pytest.raises(UnsupportedError):
        spec_to_hf(dataclasses.replace(spec, layers=layers))


def test_indexer_needs_a_query_latent() -> None:
    with pytest.raises(ConfigError, match="query latent"):
        MLASpec(2, 16, 8, 4, 8, indexer=IndexerSpec(2, 8, 4))


def test_index_head_must_hold_the_rotated_part() -> None:
    with pytest.raises(ConfigError, match="rope_head_dim"):
        MLASpec(2, 16, 8, 16, 8, query_latent_dim=8, indexer=IndexerSpec(2, 8, 4))


def test_how_routers_are_trained_is_no_reason_to_refuse() -> None:
    spec = spec_from_hf(DEEPSEEK_V3)
    moe = spec.layers[-1].ffn
    assert isinstance(moe, MoESpec)
    router = dataclasses.replace(moe.router, bias_rate=0.001, aux_loss=0.0001, aux_kind="sequence")
    layer = dataclasses.replace(spec.layers[-1], ffn=dataclasses.replace(moe, router=router))
    trained = dataclasses.replace(spec, layers=(*spec.layers[:3], *(layer,) * 58))
    assert spec_from_hf(spec_to_hf(trained)) == spec
