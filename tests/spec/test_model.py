from __future__ import annotations

import dataclasses

import pytest

from weft.core.errors import ConfigError, RequestError
from weft.spec import AttentionSpec, MLPSpec, ModelShape, ModelSpec, ParallelSpec, SamplingParams


def test_shape_fills_in_the_rest() -> None:
    spec = ModelShape(dim=128, num_layers=2, num_heads=4, num_kv_heads=2).build(500, eos_ids=(1,))
    assert spec.layers[0].mixer.head_dim == 32
    assert spec.layers[0].ffn.hidden_dim == 384
    assert spec.num_layers == 2
    assert spec.cache_values_per_token == 2 * 2 * 2 * 32


def test_qwen3_shape_has_qk_norm() -> None:
    assert ModelShape(family="qwen3").build(10).layers[0].mixer.qk_norm


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (ModelShape(dim=100, num_heads=3), "not a multiple of num_heads"),
        (ModelShape(num_heads=4, num_kv_heads=3), "cannot share"),
        (ModelShape(num_layers=0), "num_layers"),
        (ModelShape(head_dim=7), "even width"),
    ],
)
def test_impossible_shapes_are_refused(shape: ModelShape, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shape.build(100)


def test_other_impossible_specs_are_refused() -> None:
    with pytest.raises(ConfigError, match="window"):
        AttentionSpec(2, 2, 8, window=0)
    with pytest.raises(ConfigError, match="at least 1"):
        AttentionSpec(0, 1, 8)
    with pytest.raises(ConfigError, match="width"):
        MLPSpec(0)
    with pytest.raises(ConfigError, match="situ needs a gate"):
        MLPSpec(8, "situ", gated=False)
    with pytest.raises(ConfigError, match="needs a vocabulary"):
        ModelSpec("llama", 0, 8, ())
    with pytest.raises(ConfigError, match=r"parallel\.tensor"):
        ParallelSpec(tensor=0)
    assert ParallelSpec(data=2, tensor=4).num_devices == 8


def test_specs_are_values() -> None:
    assert ModelShape().build(10) == ModelShape().build(10)
    assert hash(ModelShape().build(10)) == hash(ModelShape().build(10))
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelShape().dim = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": 0},
        {"max_tokens": 0},
        {"logprobs": 21},
        {"stop": ("",)},
        {"repetition_penalty": 0.0},
        {"min_tokens": 5, "max_tokens": 2},
    ],
)
def test_sampling_out_of_range_names_the_parameter(wrong: dict) -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(**wrong)
    assert caught.value.param == next(iter(wrong))


def test_what_changes_the_distribution_is_known() -> None:
    assert not SamplingParams(temperature=0.5, seed=1).changes_distribution
    assert SamplingParams(top_k=5).changes_distribution
    assert SamplingParams(frequency_penalty=0.1).changes_distribution
    assert SamplingParams(temperature=0.0).greedy
