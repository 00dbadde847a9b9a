"""The same request gives the same tokens however it is served."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

from tests.engine.support import (
    GREEDY,
    assert_nothing_left,
    make_llm,
    make_prompts,
    model,
    tokens_of,
)
from weft.models import heads
from weft.nn.context import StepContext
from weft.spec import SamplingParams

SEEDED = SamplingParams(
    temperature=0.9, top_k=40, top_p=0.95, max_tokens=12, seed=7, frequency_penalty=0.3
)
FAMILIES = ["llama", "qwen3"]


@functools.cache
def one_alone(family, prompt, params):
    return make_llm(family).generate([prompt], params)[0]


def alone(family, prompts, params):
    """Serve each prompt with an engine of its own."""
    return [one_alone(family, tuple(prompt), params) for prompt in prompts]


def logprobs_of(completions):
    return [logprob for completion in completions for logprob in completion.logprobs]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_batch_gives_what_each_request_gives_alone(family, params):
    llm = make_llm(family)
    together = llm.generate(make_prompts(), params)
    expected = alone(family, make_prompts(), params)
    assert tokens_of(together) == tokens_of(expected)
    assert logprobs_of(together) == pytest.approx(logprobs_of(expected), abs=1e-5)
    assert_nothing_left(llm.core)


@pytest.mark.parametrize("max_tokens_per_step", [1, 3, 7, 64])
@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_chunk_size_changes_nothing(max_tokens_per_step, params):
    llm = make_llm(max_tokens_per_step=max_tokens_per_step)
    expected = alone("llama", make_prompts(), params)
    assert tokens_of(llm.generate(make_prompts(), params)) == tokens_of(expected)
    assert_nothing_left(llm.core)


@pytest.mark.parametrize("block_size", [1, 2, 5, 16, 128])
def test_block_size_changes_nothing(block_size):
    llm = make_llm(block_size=block_size, num_blocks=-(-512 // block_size))
    expected = alone("llama", make_prompts(), GREEDY)
    assert tokens_of(llm.generate(make_prompts(), GREEDY)) == tokens_of(expected)


@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_warm_prefix_cache_gives_what_a_cold_one_gives(params):
    llm = make_llm()
    prompt = make_prompts()[5] * 2
    cold = llm.generate([prompt], params)[0]
    warm = llm.generate([prompt], params)[0]
    assert cold.num_cached_tokens == 0
    assert warm.num_cached_tokens >= len(prompt) // 2
    assert warm.tokens == cold.tokens
    assert warm.logprobs == pytest.approx(cold.logprobs, abs=1e-5)
    uncached = make_llm(enable_prefix_cache=False)
    assert tokens_of(uncached.generate([prompt, prompt], params)) == [cold.tokens] * 2
    assert uncached.stats().scheduler.counters.num_prefix_hit_tokens == 0


@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_preempted_requests_give_what_undisturbed_ones_give(params):
    prompts = [[index + 1] * 9 for index in range(3)]
    params = dataclasses.replace(params, max_tokens=12, ignore_eos=True)
    crowded = make_llm(num_blocks=9, block_size=4)
    got = crowded.generate(prompts, params)
    assert crowded.stats().scheduler.counters.num_preemptions > 0
    assert tokens_of(got) == tokens_of(alone("llama", prompts, params))
    assert_nothing_left(crowded.core)


def test_seed_gives_same_tokens_in_any_order_and_beside_anything():
    prompts = make_prompts()
    mates = [
        SEEDED,
        GREEDY,
        SamplingParams(max_tokens=3),
        dataclasses.replace(SEEDED, top_p=0.3),
        dataclasses.replace(SEEDED, seed=8),
        SamplingParams(max_tokens=20, repetition_penalty=1.4, min_p=0.01),
    ]
    mine = make_llm().generate([prompts[0]], SEEDED)[0].tokens
    assert make_llm().generate(prompts, mates)[0].tokens == mine
    assert make_llm().generate(prompts[::-1], mates[::-1])[-1].tokens == mine
    other = make_llm().generate([prompts[0]], dataclasses.replace(SEEDED, seed=8))[0].tokens
    assert other != mine


def test_samples_of_one_prompt_differ_from_each_other_and_repeat_with_the_seed():
    samples = make_llm().generate([[3, 1, 4]], SEEDED, num_samples=8)
    assert [sample.index for sample in samples] == list(range(8))
    assert len(set(tokens_of(samples))) == 8
    assert tokens_of(make_llm().generate([[3, 1, 4]], SEEDED, num_samples=8)) == tokens_of(samples)


def test_requests_without_a_seed_are_drawn_apart():
    params = SamplingParams(max_tokens=12)
    assert len(set(tokens_of(make_llm().generate([[3, 1, 4]] * 6, params)))) == 6
    first = make_llm(seed=5).generate([[3, 1, 4]] * 2, params)
    assert tokens_of(first) == tokens_of(make_llm(seed=5).generate([[3, 1, 4]] * 2, params))


@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_are_those_of_the_training_path(family):
    decoder = model(family)
    params = SamplingParams(temperature=0.7, max_tokens=20, seed=3, ignore_eos=True)
    for completion in make_llm(family, max_tokens_per_step=32).generate(make_prompts(), params):
        tokens = torch.tensor(completion.prompt + completion.tokens)
        hidden_TD = decoder(tokens, StepContext.packed([len(tokens)]))
        expected = heads.log_probs(decoder, hidden_TD, tokens.roll(-1), temperature=0.7)
        start = completion.num_prompt_tokens - 1
        assert completion.logprobs == pytest.approx(expected[start:-1].tolist(), abs=1e-5)


def test_score_gives_the_logprobs_generation_reported():
    llm = make_llm()
    params = SamplingParams(max_tokens=10, seed=1, ignore_eos=True)
    completions = llm.generate(make_prompts(), params)
    scores = llm.score([completion.prompt + completion.tokens for completion in completions])
    for completion, score in zip(completions, scores, strict=True):
        assert len(score) == completion.num_prompt_tokens + len(completion.tokens) - 1
        got = score[completion.num_prompt_tokens - 1 :]
        assert got == pytest.approx(completion.logprobs, abs=1e-5)


def test_two_engines_in_one_process_do_not_disturb_each_other():
    first, second = make_llm("llama"), make_llm("qwen3")
    prompts = make_prompts()
    alternately = []
    for prompt in prompts:
        alternately.append(
            (first.generate([prompt], GREEDY)[0], second.generate([prompt], GREEDY)[0])
        )
    assert tokens_of([pair[0] for pair in alternately]) == tokens_of(
        alone("llama", prompts, GREEDY)
    )
    assert tokens_of([pair[1] for pair in alternately]) == tokens_of(
        alone("qwen3", prompts, GREEDY)
    )


def test_engine_shares_the_trainers_tensors_and_a_new_version_hides_old_prefixes():
    decoder = type(model())(model().spec, seed=4)
    llm = make_llm(decoder=decoder)
    prompt = list(range(20, 50))
    before = llm.generate([prompt], GREEDY)[0]
    assert llm.generate([prompt], GREEDY)[0].num_cached_tokens > 0
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.manual_seed(0)))
    assert llm.bump_weight_version() == 1
    after = llm.generate([prompt], GREEDY)[0]
    assert after.num_cached_tokens == 0
    assert after.weight_versions == (1,) * len(after.tokens)
    assert after.tokens != before.tokens
    assert after.tokens == make_llm(decoder=decoder).generate([prompt], GREEDY)[0].tokens


@torch.inference_mode()
def test_cached_keys_give_the_logits_of_computing_everything_again():
    llm = make_llm()
    params = dataclasses.replace(GREEDY, max_tokens=4)
    completion = llm.generate([list(range(10, 19))], params)[0]
    tokens, num_recomputed = list(completion.prompt), []
    for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
        num_recomputed.append(len(tokens))
        hidden_TD = llm.model(torch.tensor(tokens), StepContext.packed([len(tokens)]))
        logprobs_V = heads.logits(llm.model, hidden_TD[-1:])[0].log_softmax(-1)
        assert int(logprobs_V.argmax()) == token
        assert float(logprobs_V[token]) == pytest.approx(logprob, abs=1e-5)
        tokens.append(token)
    assert num_recomputed == [9, 10, 11, 12]
    assert llm.stats().scheduler.counters.num_computed_tokens == 9 + 1 + 1 + 1


def test_nine_tokens_in_chunks_of_three_give_the_logprobs_of_one_chunk():
    prompt = list(range(10, 19))
    whole = make_llm().generate([prompt], GREEDY)[0]
    chunked = make_llm(long_prefill_threshold=3)
    got = chunked.generate([prompt], GREEDY)[0]
    assert chunked.stats().scheduler.counters.num_steps == 3 + 11
    assert got.tokens == whole.tokens
    assert got.logprobs == pytest.approx(whole.logprobs, abs=1e-5)


def test_three_blocks_of_ten_make_the_second_request_wait_for_the_first():
    prompts = [[3] * 8, [4] * 8]
    params = dataclasses.replace(GREEDY, max_tokens=15)
    llm = make_llm(num_blocks=3, block_size=10)
    got = llm.generate(prompts, params)
    assert llm.stats().scheduler.counters.num_preemptions >= 1
    assert tokens_of(got) == tokens_of(alone("llama", prompts, params))
    assert_nothing_left(llm.core)


@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_same_prompt_many_times_gives_one_answer(params):
    prompt = make_prompts()[3]
    mixed = [prompt, *make_prompts(), prompt, [1], prompt, *make_prompts()[::-1], prompt]
    answers = make_llm(max_tokens_per_step=16).generate(mixed, params)
    same = {answer.tokens for answer in answers if answer.prompt == tuple(prompt)}
    assert len(same) == 1
