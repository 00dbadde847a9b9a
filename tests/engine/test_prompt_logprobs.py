"""Log-probabilities of prompts: what they equal, whatever step computes them, and what is left."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.engine.support import GREEDY, assert_nothing_left, make_llm, make_prompts
from tests.engine.test_trainer_equality import TOLERANCE, decoder
from weft.core.errors import RequestError
from weft.engine import prompt_logprobs as module
from weft.engine.prompt_logprobs import PromptScorer, score_rows
from weft.models import heads
from weft.nn.context import StepContext
from weft.spec import FinishReason, SamplingParams

SCORED = dataclasses.replace(GREEDY, max_tokens=4, prompt_logprobs=2)
LONG = [3 + (7 * index) % 250 for index in range(60)]


def logprobs_of(completion) -> list[float]:
    assert completion.prompt_logprobs[0] is None
    return [entry.logprob for entry in completion.prompt_logprobs[1:]]


def test_rank_and_alternatives_are_those_of_a_full_sort():
    logits_RV = torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    targets_R = torch.arange(7)
    expected_RV = logits_RV.log_softmax(-1)
    for row, found in enumerate(score_rows(logits_RV, targets_R, 3)):
        order = expected_RV[row].argsort(descending=True).tolist()
        assert found.logprob == pytest.approx(float(expected_RV[row, row]), abs=1e-5)
        assert found.rank == order.index(row) + 1
        assert [token for token, _ in found.top] == order[:3]
        values = expected_RV[row, order[:3]].tolist()
        assert [value for _, value in found.top] == pytest.approx(values, abs=1e-5)


def test_a_prompt_scores_what_llm_score_says():
    llm, prompts = make_llm(), [*make_prompts(), LONG]
    for completion, expected in zip(llm.generate(prompts, SCORED), llm.score(prompts), strict=True):
        assert logprobs_of(completion) == pytest.approx(expected, abs=1e-4)
        assert [len(entry.top) for entry in completion.prompt_logprobs[1:]] == [2] * len(expected)
    assert_nothing_left(llm.core)
    assert len(llm.core.runner.prompts) == 0


def test_temperature_and_penalties_do_not_change_them():
    params = SamplingParams(
        max_tokens=2, temperature=3.0, repetition_penalty=2.0, seed=0, prompt_logprobs=0
    )
    llm = make_llm()
    (completion,) = llm.generate([LONG], params)
    assert logprobs_of(completion) == pytest.approx(llm.score([LONG])[0], abs=1e-4)
    assert completion.prompt_logprobs[1].top == ()


def test_unasked_there_are_none():
    assert make_llm().generate([LONG], GREEDY)[0].prompt_logprobs is None


def test_a_prompt_of_one_token_has_nothing_to_score():
    assert make_llm().generate([[5]], SCORED)[0].prompt_logprobs == (None,)


@pytest.mark.parametrize("max_tokens_per_step", [1, 7, 64])
def test_a_deterministic_engine_gives_the_same_bits_however_a_prompt_is_cut(
    max_tokens_per_step: int,
):
    options = {"decoder": decoder(), "deterministic": True, "num_blocks": 256}
    whole = make_llm(**options).generate([LONG, *make_prompts()], SCORED)
    cut = make_llm(**options, max_tokens_per_step=max_tokens_per_step)
    for one, other in zip(whole, cut.generate([LONG, *make_prompts()], SCORED), strict=True):
        expected = torch.tensor(logprobs_of(one), dtype=torch.float64)
        difference = torch.tensor(logprobs_of(other), dtype=torch.float64) - expected
        assert difference.abs().sum() <= TOLERANCE * len(LONG)


@pytest.mark.parametrize("max_tokens_per_step", [1, 7, 64])
def test_they_do_not_depend_on_how_a_prompt_is_cut(max_tokens_per_step: int):
    whole = make_llm().generate([LONG, *make_prompts()], SCORED)
    cut = make_llm(max_tokens_per_step=max_tokens_per_step)
    for one, other in zip(whole, cut.generate([LONG, *make_prompts()], SCORED), strict=True):
        assert logprobs_of(one) == pytest.approx(logprobs_of(other), abs=1e-4)


def test_a_cached_prompt_is_computed_again_and_others_still_find_it():
    llm = make_llm()
    llm.generate([LONG], GREEDY)
    (scored,) = llm.generate([LONG], SCORED)
    assert scored.num_cached_tokens == 0
    assert logprobs_of(scored) == pytest.approx(llm.score([LONG])[0], abs=1e-4)
    (after,) = llm.generate([LONG], GREEDY)
    assert after.num_cached_tokens > 0
    assert after.tokens[:4] == scored.tokens


def test_preempted_sequences_keep_theirs():
    prompts = [[index + 3, *LONG[:19]] for index in range(6)]
    params = dataclasses.replace(SCORED, max_tokens=20)
    llm = make_llm(num_blocks=24, max_tokens_per_step=16)
    completions = llm.generate(prompts, params)
    assert llm.stats().scheduler.counters.num_preemptions > 0
    for completion, expected in zip(completions, llm.score(prompts), strict=True):
        assert logprobs_of(completion) == pytest.approx(expected, abs=1e-4)
    assert_nothing_left(llm.core)


def test_every_sample_of_a_prompt_has_them():
    completions = make_llm().generate([LONG], SCORED, num_samples=2)
    first, second = (logprobs_of(completion) for completion in completions)
    assert first == pytest.approx(second, abs=1e-5)


def test_they_come_once_with_the_first_token():
    deltas = list(make_llm(max_tokens_per_step=8).stream(LONG, SCORED))
    assert [delta.prompt_logprobs is not None for delta in deltas] == [True, False, False, False]


def test_logits_exist_for_a_few_rows_at_a_time(monkeypatch):
    llm = make_llm()
    monkeypatch.setattr(llm.core.runner.prompts, "_rows_per_chunk", 5)
    sizes, logits = [], heads.logits

    def counted(model, hidden_RD):
        sizes.append(len(hidden_RD))
        return logits(model, hidden_RD)

    monkeypatch.setattr(heads, "logits", counted)
    (completion,) = llm.generate([LONG], SCORED)
    assert max(sizes) == 5
    assert sum(sizes[:12]) == len(LONG) - 1
    monkeypatch.undo()
    assert logprobs_of(completion) == pytest.approx(llm.score([LONG])[0], abs=1e-4)


def test_the_number_of_rows_follows_the_vocabulary():
    assert PromptScorer(2**18)._rows_per_chunk == module.LOGITS_BYTES // 2**20
    assert PromptScorer(2**40)._rows_per_chunk == 1


def test_a_prompt_without_finite_logprobs_ends_its_request_alone(monkeypatch):
    llm = make_llm()
    forward = llm.model.forward

    def broken(tokens_T, context: StepContext):
        hidden_TD = forward(tokens_T, context).clone()
        hidden_TD[tokens_T == 251] = float("nan")
        return hidden_TD

    monkeypatch.setattr(llm.model, "forward", broken)
    bad, good = llm.generate([[5, 251, 7, 9], [5, 6, 7, 9]], SCORED)
    assert bad.finish_reason is FinishReason.ERROR
    assert "prompt are not finite" in bad.error
    assert good.finish_reason is FinishReason.LENGTH
    assert_nothing_left(llm.core)


def test_an_aborted_prompt_leaves_nothing():
    llm = make_llm(max_tokens_per_step=8)
    stream = llm.stream(LONG, SCORED)
    next(stream)
    stream.close()
    assert len(llm.core.runner.prompts) == 0
    assert_nothing_left(llm.core)


def test_too_many_alternatives_are_refused_by_name():
    with pytest.raises(RequestError, match="prompt_logprobs is 21") as caught:
        SamplingParams(prompt_logprobs=21)
    assert caught.value.param == "prompt_logprobs"
