"""A request that gave way and was computed again gets the same tokens."""

from __future__ import annotations

import dataclasses

import pytest

from tests.engine.features.support import (
    GREEDY,
    KINDS,
    PENALISED,
    SEEDED,
    assert_same,
    completions,
    config,
    core_of,
    requests,
    tiny,
)
from weft.spec.structured import Regex

PROMPTS = [(index + 1,) * 9 for index in range(4)]
CROWDED = {"num_blocks": 11, "block_size": 4}


def assert_same_when_crowded(wanted, kind="dense", **settings):
    cache = {"enable_prefix_cache": kind != "ring"}
    expected = completions(config(**cache), wanted, decoder=tiny(kind))
    core = core_of(config(**CROWDED, **cache, **settings), tiny(kind))
    got = completions(core, wanted)
    assert core.stats().scheduler.counters.num_preemptions > 0
    assert_same(got, expected, abs=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ring"])
@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
@pytest.mark.pair("preemption", "batching")
@pytest.mark.pair("preemption", "states")
@pytest.mark.pair("preemption", "windows")
@pytest.mark.pair("preemption", "cache")
def test_requests_that_gave_way_give_what_undisturbed_ones_give(kind, params):
    params = dataclasses.replace(params, ignore_eos=True)
    assert_same_when_crowded(requests(params, PROMPTS), kind)


@pytest.mark.parametrize("threshold", [1, 4])
@pytest.mark.pair("preemption", "chunking")
def test_they_come_back_in_chunks(threshold):
    params = dataclasses.replace(PENALISED, ignore_eos=True)
    assert_same_when_crowded(requests(params, PROMPTS), long_prefill_threshold=threshold)


@pytest.mark.pair("preemption", "grammar")
def test_a_grammar_goes_on_where_it_was():
    params = dataclasses.replace(SEEDED, structured=Regex("[a-f]{25,30}"), max_tokens=40)
    assert_same_when_crowded(requests(params, PROMPTS))
