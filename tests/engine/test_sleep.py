"""Asleep, an engine holds no byte it said it would let go of; awake, it is what it was."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from tests.engine.support import (
    GREEDY,
    assert_nothing_left,
    make_llm,
    tokens_of,
)
from tests.engine.test_weights import addresses, make_model, scores
from weft.checkpoint.hf import load_model, save_model
from weft.core.errors import ConfigError, ResourceError
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.engine.sleep import KV_CACHE, TAGS, WEIGHTS
from weft.engine.speculation.config import SpeculationConfig
from weft.models.decoder import Decoder
from weft.sched.tier_policy import TierConfig
from weft.spec import ModelShape
from weft.spec.families import spec_from_hf

PROMPT = list(range(20, 50))


def weight_bytes(decoder: Decoder) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in decoder.parameters())


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("tags", [(WEIGHTS,), (KV_CACHE,), TAGS], ids="+".join)
def test_exactly_the_predicted_bytes_are_freed_and_taken_back(tags, level):
    llm = make_llm(decoder=make_model(2))
    expected = {WEIGHTS: weight_bytes(llm.model), KV_CACHE: llm.core.memory.kv_bytes}
    predicted = sum(expected[tag] for tag in tags)
    asleep = llm.sleep(tags, level=level)
    assert (asleep.predicted_bytes, asleep.moved_bytes) == (predicted, predicted)
    held = {
        WEIGHTS: weight_bytes(llm.model),
        KV_CACHE: llm.core.runner.cache.size_bytes,
    }
    assert {tag for tag in TAGS if held[tag] == 0} == set(tags)
    awake = llm.wake()
    assert (awake.predicted_bytes, awake.moved_bytes) == (predicted, predicted)
    assert weight_bytes(llm.model) == expected[WEIGHTS]
    assert llm.core.runner.cache.size_bytes == expected[KV_CACHE]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tags", [(WEIGHTS,), (KV_CACHE,), TAGS], ids="+".join)
def test_outputs_are_identical_after_a_wake(tags, tied):
    llm = make_llm(decoder=make_model(2, tie_embeddings=tied))
    before = llm.generate([PROMPT], GREEDY)[0]
    logits = scores(llm.model)
    parameters = dict(llm.model.named_parameters())
    llm.sleep(tags)
    llm.wake(tags)
    assert torch.equal(scores(llm.model), logits)
    assert all(parameter is parameters[name] for name, parameter in llm.model.named_parameters())
    assert (llm.model.head_weight.data_ptr() == llm.model.embed.weight.data_ptr()) == tied
    after = llm.generate([PROMPT], GREEDY)[0]
    assert after.tokens == before.tokens
    assert (after.num_cached_tokens == 0) == (KV_CACHE in tags)
    if KV_CACHE in tags:  # else the prompt is found in the cache and computed in other chunks
        assert after.logprobs == before.logprobs
    assert_nothing_left(llm.core)


def test_states_of_recurrent_layers_sleep_with_the_cache():
    config = {
        "model_type": "mamba2", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2,
        "expand": 2, "head_dim": 8, "num_heads": 8, "state_size": 8, "n_groups": 1,
    }  # fmt: skip
    decoder = Decoder(spec_from_hf(config), seed=0).eval()
    llm = LLM(decoder, None, EngineConfig(num_blocks=16, max_num_sequences=3))
    before = tokens_of(llm.generate([[1, 2, 3]], GREEDY))
    report = llm.sleep([KV_CACHE])
    assert report.predicted_bytes == report.moved_bytes > 0
    llm.wake()
    assert tokens_of(llm.generate([[1, 2, 3]], GREEDY)) == before


@pytest.mark.parametrize("tags", [(WEIGHTS,), (KV_CACHE,), TAGS], ids="+".join)
def test_requests_under_way_survive_the_sleep(tags):
    llm = make_llm(decoder=make_model(2))
    expected = tokens_of(make_llm(decoder=make_model(2)).generate([PROMPT], GREEDY))[0]
    stream = llm.stream(PROMPT, GREEDY)
    tokens = [next(stream).token for _ in range(4)]
    llm.sleep(tags)
    assert llm.core.step() == []
    llm.wake(tags)
    tokens += [delta.token for delta in stream]
    assert tuple(tokens) == expected
    assert_nothing_left(llm.core)


@pytest.mark.pair("pause", "overlap")
@pytest.mark.parametrize(
    "config",
    [
        {"kv_dtype": "int8"},
        {"tiers": TierConfig(host_bytes=2**20)},
        {"speculation": SpeculationConfig(kind="ngram")},
        {"overlap_depth": 1},
    ],
    ids=["quantized_kv", "offload", "speculation", "overlap"],
)
def test_other_features_sleep_too(config):
    llm = make_llm(decoder=make_model(2), **config)
    before = tokens_of(llm.generate([PROMPT, PROMPT[3:]], GREEDY))
    report = llm.sleep()
    assert report.moved_bytes == report.predicted_bytes
    llm.wake()
    for _ in ("cold", "warm"):
        assert tokens_of(llm.generate([PROMPT, PROMPT[3:]], GREEDY)) == before
    assert_nothing_left(llm.core)


def test_new_requests_are_refused_while_asleep():
    llm = make_llm(decoder=make_model(2))
    llm.sleep([KV_CACHE])
    with pytest.raises(ResourceError, match="asleep: it has let go of kv_cache"):
        llm.generate([PROMPT], GREEDY)
    llm.wake()
    assert len(llm.generate([PROMPT], GREEDY)[0].tokens) == GREEDY.max_tokens


def test_thrown_away_weights_need_an_update(tmp_path):
    trainer, llm = make_model(1), make_llm(decoder=make_model(2))
    llm.sleep(level=2)
    with pytest.raises(ResourceError, match="the weights are asleep"):
        llm.weights.update(trainer.state_dict())
    llm.wake([WEIGHTS])
    with pytest.raises(ResourceError, match="half old, half new"):
        llm.generate([PROMPT], GREEDY)
    llm.weights.update(trainer.state_dict())
    with pytest.raises(ResourceError, match="kv_cache"):
        llm.generate([PROMPT], GREEDY)
    llm.wake([KV_CACHE])
    assert torch.equal(scores(llm.model), scores(trainer))
    save_model(make_model(3), tmp_path)
    llm.sleep([WEIGHTS], level=2)
    llm.wake()
    llm.weights.reload(tmp_path)
    assert torch.equal(scores(llm.model), scores(make_model(3)))


def test_sleeping_twice_and_waking_twice_change_nothing():
    llm = make_llm(decoder=make_model(2))
    before = scores(llm.model)
    llm.sleep([WEIGHTS])
    assert llm.sleep([WEIGHTS], level=2).moved_bytes == 0
    assert llm.sleep().moved_bytes == llm.core.memory.kv_bytes
    assert llm.core.sleeper.asleep == {WEIGHTS, KV_CACHE}
    llm.wake()
    assert llm.wake().moved_bytes == 0
    assert torch.equal(scores(llm.model), before)


def test_memory_that_somebody_else_holds_is_not_counted_as_freed():
    llm = make_llm(decoder=make_model(2))
    held = llm.model.embed.weight.detach()
    report = llm.sleep([WEIGHTS])
    assert report.predicted_bytes - report.moved_bytes == held.numel() * held.element_size()
    assert held.abs().sum() > 0


def test_kept_weights_lie_in_a_folder_that_disappears(tmp_path):
    llm = make_llm(decoder=make_model(2))
    llm.core.sleeper._folder = tmp_path
    llm.sleep()
    (folder,) = tmp_path.iterdir()
    assert sum(path.stat().st_size for path in folder.iterdir()) > weight_bytes(make_model(2))
    llm.wake()
    assert not list(tmp_path.iterdir())
    llm.sleep()
    del llm
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_lets_go_of_nothing(tmp_path, monkeypatch):
    llm = make_llm(decoder=make_model(2))
    before = tokens_of(llm.generate([PROMPT], GREEDY))
    llm.core.sleeper._folder = tmp_path

    def full(*_, **__):
        raise ResourceError("the disk is full")

    monkeypatch.setattr("weft.engine.sleep.write_sharded", full)
    with pytest.raises(ResourceError, match="disk is full"):
        llm.sleep()
    assert llm.core.gate.state == "running"
    assert tokens_of(llm.generate([PROMPT], GREEDY)) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"tags": ["weight"]}, "did you mean 'weights'"), ({"level": 3}, "sleep level is 3")],
)
def test_unknown_tags_and_levels_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_llm(decoder=make_model(2)).sleep(**arguments)


def test_colocated_training_lets_the_cache_sleep_and_trains_the_engines_own_tensors():
    """The order of a colocated step: generate, sleep the cache, train, wake, generate."""
    llm = make_llm(decoder=make_model(2))
    before = addresses(llm.model)
    old = tokens_of(llm.generate([PROMPT], GREEDY))
    llm.sleep([KV_CACHE])
    optimizer = torch.optim.SGD(llm.model.parameters(), lr=0.5)
    trainer = make_model(1)
    for parameter, target in zip(llm.model.parameters(), trainer.parameters(), strict=True):
        parameter.grad = (parameter.detach() - target.detach()) / 0.5
    optimizer.step()
    llm.bump_weight_version()
    llm.wake()
    assert addresses(llm.model) == before
    new = tokens_of(llm.generate([PROMPT], GREEDY))
    assert new == tokens_of(make_llm(decoder=trainer).generate([PROMPT], GREEDY)) != old


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_the_process_shrinks_by_what_was_freed(tmp_path):
    """Weights on huge pages, as a checkpoint's are, and a large cache: the pages go back."""
    shape = ModelShape(family="llama", dim=512, num_layers=16, num_heads=8, context_length=4096)
    spec = shape.build(8192)
    save_model(Decoder(spec, seed=0), tmp_path)
    llm = LLM(load_model(tmp_path), None, EngineConfig(kv_tokens=8192))
    for layer in llm.core.runner.cache.tokens:
        for tensor in layer.values():
            tensor.fill_(0.5)
    logits = scores(llm.model)
    gc.collect()
    before = resident_bytes()
    report = llm.sleep()
    assert report.moved_bytes == report.predicted_bytes > 300 * 2**20
    assert before - resident_bytes() == pytest.approx(report.moved_bytes, rel=0.03)
    llm.wake()
    assert torch.equal(scores(llm.model), logits)
