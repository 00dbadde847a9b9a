"""However a prompt is cut into steps, the request gets the same tokens."""

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
from tests.engine.support import make_prompts
from weft.spec.structured import Regex


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.pair("chunking", "batching")
@pytest.mark.pair("chunking", "states")
@pytest.mark.pair("chunking", "windows")
def test_prompts_in_chunks_give_what_whole_ones_give(kind, chunk):
    decoder, wanted = tiny(kind), requests([GREEDY, SEEDED, PENALISED] * 2)
    cache = kind != "ring"
    expected = completions(config(enable_prefix_cache=cache), wanted, decoder=decoder)
    settings = config(
        enable_prefix_cache=cache, max_tokens_per_step=8, long_prefill_threshold=chunk
    )
    assert_same(completions(settings, wanted, decoder=decoder), expected, abs=1e-4)


@pytest.mark.pair("chunking", "cache")
def test_a_prefix_is_found_by_a_prompt_in_chunks():
    prompt = make_prompts()[5] * 3
    core = core_of(config(long_prefill_threshold=3))
    wanted = requests(SEEDED, [prompt])
    cold, warm = completions(core, wanted), completions(core, wanted)
    assert warm[0].num_cached_tokens > 0
    assert_same(warm, cold)


@pytest.mark.pair("chunking", "grammar")
def test_a_grammar_begins_behind_the_last_chunk():
    params = dataclasses.replace(SEEDED, structured=Regex("[a-f]{3,9}"), max_tokens=20)
    wanted = requests(params)
    settings = config(long_prefill_threshold=2)
    assert_same(completions(settings, wanted), completions(config(), wanted))
