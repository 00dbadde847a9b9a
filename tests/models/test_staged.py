"""Models whose layers are on several ranks say what the whole says."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.engine.parallel.support import stage
from tests.models.ranks import on_ranks
from tests.models.test_sharding import FFNS, MIXERS, model_spec, randomised, scores
from weft.core.errors import ConfigError, UnsupportedError
from weft.models.staged import plan_stages
from weft.spec import LayerSpec

TOKENS = torch.arange(13) * 7 % 101


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("mixer", ["grouped", "relative", "sparse latent", "mamba", "rwkv6"])
def test_stages_equal_the_whole_to_the_bit(mixer, size):
    spec = model_spec(MIXERS[mixer], FFNS["shared expert"])
    spec = dataclasses.replace(spec, layers=spec.layers * 2)
    whole = randomised(spec)
    with torch.no_grad():
        expected = scores(whole, TOKENS)
    for got in on_ranks(size, lambda group: scores(stage(whole, group), TOKENS)):
        assert torch.equal(got, expected)


def test_layers_are_dealt_out_evenly_and_each_once():
    spec = dataclasses.replace(model_spec(), layers=model_spec().layers * 4)
    plans = plan_stages(spec, 3)
    assert [(plan.start, plan.stop) for plan in plans] == [(0, 2), (2, 5), (5, 8)]
    names = [[plan.local_name(f"layers.{layer}.ffn.down.weight") for plan in plans]
             for layer in range(8)]  # fmt: skip
    assert names[0] == ["layers.0.ffn.down.weight", None, None]
    assert names[6] == [None, None, "layers.1.ffn.down.weight"]
    assert all(sum(name is not None for name in row) == 1 for row in names)
    assert plans[1].local_name("norm.weight") == "norm.weight"


def test_keys_of_another_layer_stay_in_its_stage():
    spec = model_spec()
    borrowing = dataclasses.replace(spec.layers[1].mixer, kv_source=2)
    own = spec.layers[0]
    layers = (own, own, own, dataclasses.replace(own, mixer=borrowing))
    whole = randomised(dataclasses.replace(spec, layers=layers))
    with torch.no_grad():
        expected = scores(whole, TOKENS)
    assert torch.equal(on_ranks(2, lambda g: scores(stage(whole, g), TOKENS))[0], expected)
    with pytest.raises(UnsupportedError, match="layer 3 uses the keys of layer 2"):
        plan_stages(whole.spec, 4)


@pytest.mark.parametrize("size", [0, 3])
def test_more_stages_than_layers_are_refused(size):
    with pytest.raises(ConfigError, match=f"2 layers cannot be dealt out to {size} stages"):
        plan_stages(model_spec(), size)


def test_stages_that_keep_tokens_by_different_rules_are_refused():
    windowed = dataclasses.replace(MIXERS["grouped"], window=4)
    layers = (LayerSpec(windowed, FFNS["gated"]), LayerSpec(MIXERS["grouped"], FFNS["gated"]))
    with pytest.raises(UnsupportedError, match="by different rules"):
        plan_stages(dataclasses.replace(model_spec(), layers=layers), 2)


def test_experts_chosen_by_the_layers_number_are_refused():
    with pytest.raises(UnsupportedError, match="layer 0 chooses experts by its number"):
        plan_stages(model_spec(ffn=FFNS["hashed experts"]), 2)
