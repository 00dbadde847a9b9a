"""Samples of one prompt are forks: the prompt is computed once, and nothing else changes."""

from __future__ import annotations

import dataclasses

import pytest

from tests.engine.support import GREEDY, assert_nothing_left, make_llm, make_prompts, tokens_of
from weft.spec import SamplingParams
from weft.spec.structured import Regex

SEEDED = SamplingParams(temperature=0.9, top_p=0.95, max_tokens=10, seed=7, ignore_eos=True)
PROMPT = list(range(20, 39))
NUM_SAMPLES = 4


def apart(prompts, params, **config):
    """Draw every sample by an engine that knows of no other."""
    drawn = []
    for prompt in prompts:
        for sample in range(NUM_SAMPLES):
            llm = make_llm(**config)
            request = llm._request(tuple(prompt), params, sample, None)
            stream = llm.core.submit(request)
            while llm.core.has_work:
                llm.core.step()
            drawn.append(stream.completion())
    return drawn


@pytest.mark.pair("fork", "batching")
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("cached", [True, False])
def test_samples_are_those_of_separate_requests(cached, depth):
    llm = make_llm(enable_prefix_cache=cached, num_blocks=256, overlap_depth=depth)
    together = llm.generate(make_prompts(), SEEDED, num_samples=NUM_SAMPLES)
    separate = apart(make_prompts(), SEEDED)
    assert tokens_of(together) == tokens_of(separate)
    for mine, theirs in zip(together, separate, strict=True):
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)
    assert_nothing_left(llm.core)


@pytest.mark.pair("fork", "cache")
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("num_prompt_tokens", [1, 3, 4, 5, 16, 19])
def test_a_prompt_is_computed_once_with_its_partial_block(num_prompt_tokens, cached):
    """Blocks have 4 slots; a fork computes the last token of the prompt, which it draws from."""
    llm = make_llm(enable_prefix_cache=cached)
    params = dataclasses.replace(SEEDED, max_tokens=3)
    llm.generate([PROMPT[:num_prompt_tokens]], params, num_samples=NUM_SAMPLES)
    computed = llm.stats().scheduler.counters.num_computed_tokens
    outputs = NUM_SAMPLES * 2  # what is drawn last is never computed
    assert computed == num_prompt_tokens + (NUM_SAMPLES - 1) + outputs
    assert_nothing_left(llm.core)


@pytest.mark.pair("fork", "chunking")
@pytest.mark.parametrize("budget", [1, 3, 7])
def test_forks_wait_for_a_prompt_in_chunks(budget):
    llm = make_llm(max_tokens_per_step=budget, max_num_sequences=budget)
    got = llm.generate([PROMPT], SEEDED, num_samples=NUM_SAMPLES)
    assert tokens_of(got) == tokens_of(apart([PROMPT], SEEDED))
    assert_nothing_left(llm.core)


@pytest.mark.pair("fork", "preemption")
def test_forks_survive_preemption():
    params = dataclasses.replace(SEEDED, max_tokens=14)
    llm = make_llm(num_blocks=12, enable_prefix_cache=False)
    got = llm.generate([PROMPT], params, num_samples=NUM_SAMPLES)
    assert llm.stats().scheduler.counters.num_preemptions > 0
    assert tokens_of(got) == tokens_of(apart([PROMPT], params))
    assert_nothing_left(llm.core)


@pytest.mark.pair("fork", "deterministic")
def test_deterministic_forks_have_the_bits_of_separate_requests():
    together = make_llm(deterministic=True).generate([PROMPT], SEEDED, num_samples=NUM_SAMPLES)
    separate = apart([PROMPT], SEEDED, deterministic=True)
    assert tokens_of(together) == tokens_of(separate)
    assert [it.logprobs for it in together] == [it.logprobs for it in separate]


@pytest.mark.pair("fork", "grammar")
def test_each_fork_has_a_grammar_of_its_own():
    params = SamplingParams(max_tokens=30, seed=1, structured=Regex("[abc]{6}"))
    got = make_llm().generate([PROMPT], params, num_samples=NUM_SAMPLES)
    assert tokens_of(got) == tokens_of(apart([PROMPT], params))
    assert len({completion.text for completion in got}) > 1


@pytest.mark.pair("fork", "pause")
@pytest.mark.parametrize("mode", ["retract", "in_place"])
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_forks_go_on_after_a_pause(mode, num_steps):
    llm = make_llm()
    steps = 0

    def pausing(_):
        nonlocal steps
        steps += 1
        if steps == num_steps:
            llm.pause(mode)
            llm.resume()

    got = llm.generate([PROMPT], SEEDED, num_samples=NUM_SAMPLES, on_delta=pausing)
    assert tokens_of(got) == tokens_of(apart([PROMPT], SEEDED))
    assert_nothing_left(llm.core)


def test_a_prompt_is_scored_once_for_all_samples():
    params = dataclasses.replace(SEEDED, prompt_logprobs=2)
    llm = make_llm(enable_prefix_cache=False)
    got = llm.generate([PROMPT, PROMPT[:5]], params, num_samples=NUM_SAMPLES)
    for index, prompt in enumerate((PROMPT, PROMPT[:5])):
        samples = got[index * NUM_SAMPLES : (index + 1) * NUM_SAMPLES]
        [alone] = make_llm().generate([prompt], params)
        assert len({sample.prompt_logprobs for sample in samples}) == 1
        found = [entry.logprob for entry in samples[-1].prompt_logprobs[1:]]
        expected = [entry.logprob for entry in alone.prompt_logprobs[1:]]
        assert found == pytest.approx(expected, abs=1e-5)
    computed = llm.stats().scheduler.counters.num_computed_tokens
    assert computed == len(PROMPT) + 5 + 2 * ((NUM_SAMPLES - 1) + NUM_SAMPLES * 9)


def test_greedy_samples_are_all_the_same():
    got = make_llm().generate([PROMPT], GREEDY, num_samples=3)
    assert len(set(tokens_of(got))) == 1
