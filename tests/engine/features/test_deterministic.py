"""Deterministic mode: equal tokens and equal bits of every log-probability, however served (G20).

The reference is each request alone, its prompt in one chunk, nothing cached.
"""

from __future__ import annotations

import dataclasses
import functools
import random

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
    tiny,
)
from tests.engine.support import make_prompts
from weft.spec.request import Request

# Of each kind of arithmetic one; recurrent ones differ in theirs.
ATTENTION = ["dense", "windows", "latent", "softcap", "sinks", "slopes", "experts"]
RECURRENT = [
    "gated-delta",
    "rwkv",
    *(
        pytest.param(kind, marks=pytest.mark.slow)
        for kind in ("kimi-delta", "mamba2", "gated-linear", "short-conv")
    ),
]
PARAMS = [GREEDY, SEEDED, dataclasses.replace(PENALISED, logprobs=2)]


def exact(**settings):
    return config(deterministic=True, **settings)


@functools.cache
def alone(kind: str, prompt: tuple[int, ...], params: int):
    """Serve one request with an engine of its own."""
    settings = exact(enable_prefix_cache=False)
    return completions(settings, requests(PARAMS[params], [prompt]), decoder=tiny(kind))[0]


def wanted_and_expected(kind: str, num: int = 5):
    prompts = make_prompts(num)
    wanted = requests([PARAMS[index % 3] for index in range(num)], prompts)
    return wanted, [alone(kind, tuple(p), index % 3) for index, p in enumerate(prompts)]


@pytest.mark.parametrize("kind", ATTENTION + RECURRENT)
@pytest.mark.pair("deterministic", "batching")
@pytest.mark.pair("deterministic", "states")
@pytest.mark.pair("deterministic", "windows")
def test_requests_together_at_once_or_one_after_the_other(kind):
    wanted, expected = wanted_and_expected(kind)
    assert_same(completions(exact(), wanted, decoder=tiny(kind)), expected, abs=0)
    late = completions(exact(), wanted, decoder=tiny(kind), stagger=2)
    assert_same(late, expected, abs=0)


@pytest.mark.parametrize("kind", ATTENTION + RECURRENT)
@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow), 5])
@pytest.mark.pair("deterministic", "chunking")
def test_prompts_in_chunks(kind, chunk):
    wanted, expected = wanted_and_expected(kind)
    settings = exact(max_tokens_per_step=max(chunk, 4), long_prefill_threshold=chunk)
    assert_same(completions(settings, wanted, decoder=tiny(kind)), expected, abs=0)


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.pair("deterministic", "cache")
def test_cold_and_warm_prefixes(kind):
    prompt = tuple(make_prompts()[5] * 2)
    wanted = requests([PARAMS[0], PARAMS[1]], [prompt, prompt])
    core = core_of(exact(), tiny(kind))
    for _ in ("cold", "warm"):
        got = completions(core, wanted)
        assert_same(got, [alone(kind, prompt, 0), alone(kind, prompt, 1)], abs=0)
    assert got[0].num_cached_tokens > 0


@pytest.mark.parametrize("kind", ATTENTION + RECURRENT)
@pytest.mark.pair("deterministic", "preemption")
def test_preempted_requests(kind):
    prompts = [(index + 1,) * 9 for index in range(3)]
    core = core_of(exact(num_blocks=9, enable_prefix_cache=False), tiny(kind))
    got = completions(core, requests(GREEDY, prompts))
    assert core.stats().scheduler.counters.num_preemptions > 0
    assert_same(got, [alone(kind, prompt, 0) for prompt in prompts], abs=0)


@pytest.mark.parametrize("kind", ["dense", "softcap", "rwkv"])
@pytest.mark.pair("deterministic", "overlap")
def test_overlapping_steps(kind):
    wanted, expected = wanted_and_expected(kind)
    assert_same(completions(exact(overlap_depth=1), wanted, decoder=tiny(kind)), expected, abs=0)


SOME_SIZES = (1, 2, 5, 16, 17, 64)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("dense", SOME_SIZES),
        pytest.param("dense", range(1, 65), marks=pytest.mark.slow),
        ("latent", SOME_SIZES),
        ("experts", SOME_SIZES),
    ],
    ids=["dense", "dense-all", "latent", "experts"],
)
def test_batches_of_1_to_64(kind, sizes):
    prompt, settings = tuple(make_prompts()[3]), exact(num_blocks=700, max_num_sequences=64)
    params = dataclasses.replace(SEEDED, max_tokens=4)
    mine = Request("mine", prompt, params)
    expected = completions(settings, [mine], decoder=tiny(kind))
    for size in sizes:
        rng = random.Random(size)
        neighbours = [
            Request(
                str(index),
                tuple(rng.randrange(3, 300) for _ in range(rng.randrange(1, 20))),
                dataclasses.replace(rng.choice(PARAMS), max_tokens=rng.randrange(4, 8), seed=index),
            )
            for index in range(size - 1)
        ]
        place = rng.randrange(size)
        mixed = [*neighbours[:place], mine, *neighbours[place:]]
        got = completions(settings, mixed, decoder=tiny(kind))
        assert_same([got[place]], expected, abs=0)
