"""A prefix found in the cache gives what computing it gives."""

from __future__ import annotations

import dataclasses

import pytest

from tests.engine.features.support import (
    GREEDY,
    KINDS,
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

PROMPT = make_prompts()[5] * 3
BEGINNING_ALIKE = [PROMPT, [*PROMPT[:20], 7, 8, 9], [*PROMPT[:9], 3], [*PROMPT, 4]]
STATELESS = [kind for kind in KINDS if kind not in ("ring", "gated-delta", "rwkv")]


@pytest.mark.parametrize("kind", STATELESS)
@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
@pytest.mark.pair("cache", "batching")
@pytest.mark.pair("cache", "windows")
def test_warm_requests_give_what_cold_ones_give(kind, params):
    wanted = requests(params, BEGINNING_ALIKE)
    cold = completions(config(enable_prefix_cache=False), wanted, decoder=tiny(kind))
    core = core_of(config(), tiny(kind))
    assert_same(completions(core, wanted, stagger=3), cold, abs=1e-4)
    warm = completions(core, wanted)
    assert_same(warm, cold, abs=1e-4)
    assert min(completion.num_cached_tokens for completion in warm) >= 8


@pytest.mark.pair("cache", "grammar")
def test_a_cached_prompt_changes_nothing_for_a_grammar():
    params = dataclasses.replace(SEEDED, structured=Regex("[a-f]{3,9}"), max_tokens=20)
    wanted = requests(params, BEGINNING_ALIKE)
    core = core_of(config())
    cold = completions(core, wanted)
    assert_same(completions(core, wanted), cold)


def test_salts_do_not_share_prefixes():
    core = core_of(config())
    mine = requests(GREEDY, [PROMPT], cache_salt="mine")
    yours = requests(GREEDY, [PROMPT], cache_salt="yours")
    first, second, third = (completions(core, wanted)[0] for wanted in (mine, yours, mine))
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 0)
    assert third.num_cached_tokens > 0
    assert first.tokens == second.tokens == third.tokens
