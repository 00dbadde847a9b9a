"""Two ranks say what one process says, with every other feature of the engine.

Ranks are threads here, with the real plans, runners and sums; ``tests/engine/parallel`` has real
processes. Sums over ranks add in another order, so log-probabilities agree up to rounding.
"""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest

from tests.engine.features.support import (
    GREEDY,
    PENALISED,
    SEEDED,
    assert_same,
    completions,
    config,
    core_of,
    requests,
    step,
    tiny,
)
from tests.engine.parallel.support import threaded_core
from tests.engine.support import make_prompts
from weft.engine.pause import pause, resume
from weft.spec import SamplingParams
from weft.spec.structured import JSONSchema

KINDS = ("dense", "windows", "latent", "softcap", "sinks")
STATES = ("linear", "gated-delta", "kimi-delta", "mamba2", "mamba", "rwkv", "rwkv-5", "short-conv")

# The weights of these models are three times as large as usual, so that greedy tokens are certain;
# so is the rounding.
TOLERANCE = 5e-5


def assert_equal(kind="dense", asked=None, *, alone=None, size=2, **settings):
    """Serve on one process (with ``alone``'s settings) and on ranks; compare."""
    asked = requests() if asked is None else asked
    decoder = tiny(kind)
    expected = completions(config(**(settings if alone is None else alone)), asked, decoder=decoder)
    with threaded_core(decoder, config(**settings), size) as core:
        got = completions(core, asked)
        stats = core.stats().scheduler
    assert_same(got, expected, abs=TOLERANCE)
    return stats


@pytest.mark.pair("tensor_parallel", "batching")
@pytest.mark.parametrize("kind", KINDS)
def test_every_attention_gives_the_tokens_of_one_process(kind):
    assert_equal(kind)


@pytest.mark.pair("tensor_parallel", "states")
@pytest.mark.parametrize("kind", STATES)
def test_every_recurrence_gives_the_tokens_of_one_process(kind):
    assert_equal(kind)


@pytest.mark.parametrize("params", [SEEDED, PENALISED])
def test_draws_are_those_of_one_process(params):
    assert_equal(asked=requests(params))


def test_four_ranks_with_fewer_key_heads_give_the_tokens_of_one_process():
    assert_equal(size=4)


@pytest.mark.pair("tensor_parallel", "chunking")
@pytest.mark.parametrize("kind", ["dense", "latent", "gated-delta"])
def test_chunked_prompts_give_the_tokens_of_one_process(kind):
    assert_equal(kind, alone={}, max_tokens_per_step=5)


@pytest.mark.pair("tensor_parallel", "cache")
def test_cached_prefixes_give_the_tokens_of_one_process():
    prompts = [[*range(3, 40), last] for last in (50, 51, 52)] * 2
    asked = requests(SEEDED, prompts)
    stats = assert_equal(asked=asked, alone={"enable_prefix_cache": False}, max_num_sequences=2)
    assert stats.counters.num_prefix_hit_tokens > 0


@pytest.mark.pair("tensor_parallel", "preemption")
@pytest.mark.parametrize("kind", ["dense", "gated-delta"])
def test_preempted_sequences_give_the_tokens_of_one_process(kind):
    long = dataclasses.replace(SEEDED, max_tokens=30)
    stats = assert_equal(kind, requests(long), alone={}, num_blocks=24, enable_prefix_cache=False)
    assert stats.counters.num_preemptions > 0


def test_prompt_logprobs_survive_a_preemption_behind_the_prompt():
    """Rank 0 hands them out with the first token; the others must forget them then, too."""
    params = dataclasses.replace(SEEDED, max_tokens=30, prompt_logprobs=2)
    asked = requests(params)
    expected = completions(config(), asked)
    with threaded_core(tiny(), config(num_blocks=24, enable_prefix_cache=False)) as core:
        got = completions(core, asked)
        assert core.stats().scheduler.counters.num_preemptions > 0
    assert_same(got, expected, abs=TOLERANCE)
    for ours, theirs in zip(got, expected, strict=True):
        values = [[entry.logprob for entry in one.prompt_logprobs[1:]] for one in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], abs=TOLERANCE)


@pytest.mark.pair("tensor_parallel", "overlap")
def test_overlapping_steps_give_the_tokens_of_one_process():
    assert_equal(asked=requests(PENALISED), alone={}, overlap_depth=1, max_tokens_per_step=9)


@pytest.mark.pair("tensor_parallel", "deterministic")
def test_the_same_bits_however_requests_are_scheduled():
    asked = requests(SEEDED)
    with threaded_core(tiny(), config(deterministic=True)) as core:
        together = completions(core, asked)
    settings = {"deterministic": True, "max_tokens_per_step": 3, "enable_prefix_cache": False}
    with threaded_core(tiny(), config(**settings)) as core:
        apart = completions(core, asked)
    assert_same(apart, together, abs=0)


@pytest.mark.pair("tensor_parallel", "quantized_kv")
def test_codes_of_keys_and_values_give_the_tokens_of_one_process():
    """A head's numbers are all on one rank, so its scales are too."""
    assert_equal(kv_dtype="int8")


@pytest.mark.pair("tensor_parallel", "windows")
def test_rings_of_blocks_give_the_tokens_of_one_process():
    long = dataclasses.replace(GREEDY, max_tokens=40)
    assert_equal("ring", requests(long), enable_prefix_cache=False)


@pytest.mark.pair("tensor_parallel", "grammar")
@pytest.mark.skipif(not importlib.util.find_spec("llguidance"), reason="needs llguidance")
def test_grammars_compiled_by_every_rank_give_the_tokens_of_one_process():
    schema = JSONSchema.of({"type": "array", "items": {"enum": [1, 2]}, "maxItems": 3})
    structured = SamplingParams(max_tokens=30, seed=3, structured=schema)
    plain = dataclasses.replace(SEEDED, max_tokens=30)
    assert_equal(asked=requests([structured, plain] * 3))


@pytest.mark.pair("tensor_parallel", "pause")
def test_a_pause_between_steps_changes_nothing():
    asked = requests(SEEDED)
    expected = completions(config(), asked)
    with threaded_core(tiny(), config()) as core:
        streams = [core.submit(request) for request in asked]
        for _ in range(4):
            step(core)
        pause(core, "retract")
        resume(core)
        while core.has_work:
            step(core)
        got = [stream.completion() for stream in streams]
    assert_same(got, expected, abs=TOLERANCE)


def test_aborted_requests_are_forgotten_by_every_rank():
    with threaded_core(tiny(), config()) as core:
        streams = [core.submit(request) for request in requests()]
        for _ in range(3):
            step(core)
        for stream in streams[:4]:
            core.abort(stream.request.id)
        while core.has_work:
            step(core)
        assert len(core.runner.table) == 0
        assert [len(s.completion().tokens) for s in streams[4:]] == [GREEDY.max_tokens] * 2


def test_an_engine_of_one_rank_is_an_ordinary_engine():
    assert core_of(config()).ranks is None
    assert len(make_prompts()) == len(completions(config(), requests()))


@pytest.mark.parametrize("kind", ["dense", "ring", "latent", "mamba", "gated-delta"])
@pytest.mark.parametrize("overlap_depth", [0, 1])
def test_stages_of_layers_give_the_tokens_of_one_process(kind, overlap_depth):
    asked = requests(PENALISED)
    settings = config(overlap_depth=overlap_depth, max_tokens_per_step=9)
    expected = completions(settings, asked, decoder=tiny(kind))
    with threaded_core(tiny(kind), settings, staged=True) as core:
        got = completions(core, asked)
        assert core.model.spec.num_layers == tiny(kind).spec.num_layers // 2
    assert_same(got, expected)
