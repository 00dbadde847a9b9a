"""One request's trouble stays that request's."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.engine.features.support import tiny
from tests.engine.support import GREEDY, assert_nothing_left, make_llm, make_prompts, tokens_of
from weft.engine import runner
from weft.engine.sampling import pipeline
from weft.spec import FinishReason, SamplingParams


def test_exception_in_one_requests_sampling_fails_only_that_request(monkeypatch):
    original = pipeline.sample

    def sample(logits_RV, batch):
        if (batch.min_p_R == 0.125).any():
            logits_RV.zero_()  # what a half-done step may leave behind
            raise IndexError("one row is broken")
        return original(logits_RV, batch)

    prompts = make_prompts()
    expected = make_llm().generate(prompts, GREEDY)
    llm = make_llm()
    monkeypatch.setattr(pipeline, "sample", sample)
    params = [GREEDY] * len(prompts)
    params[2] = SamplingParams(min_p=0.125, max_tokens=5)
    got = llm.generate(prompts, params)
    assert got[2].finish_reason is FinishReason.ERROR
    assert got[2].error == "sampling failed: IndexError: one row is broken"
    assert got[2].tokens == ()
    others = [index for index in range(len(prompts)) if index != 2]
    assert [got[i].tokens for i in others] == [expected[i].tokens for i in others]
    assert_nothing_left(llm.core)


@pytest.mark.parametrize("params", [GREEDY, SamplingParams(top_p=0.9, max_tokens=12)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_fail_only_their_request(monkeypatch, params, value):
    original = runner.heads.logits

    def logits(decoder, hidden_RD):
        rows = original(decoder, hidden_RD)
        if len(rows) == 6:
            rows[4] = value
        return rows

    monkeypatch.setattr(runner.heads, "logits", logits)
    llm = make_llm()
    got = llm.generate(make_prompts(), params)
    assert [c.finish_reason for c in got].count(FinishReason.ERROR) == 1
    assert got[4].finish_reason is FinishReason.ERROR
    assert "not finite" in got[4].error
    assert all(c.tokens for index, c in enumerate(got) if index != 4)
    assert_nothing_left(llm.core)


def test_rows_in_chunks_sample_as_together(monkeypatch):
    params = SamplingParams(seed=1, max_tokens=8, logprobs=2)
    expected = make_llm().generate(make_prompts(), params)
    monkeypatch.setattr(runner, "LOGITS_BYTES", 2 * 4 * 300)
    got = make_llm().generate(make_prompts(), params)
    assert tokens_of(got) == tokens_of(expected)


def test_only_rows_that_sample_go_through_the_head(monkeypatch):
    num_rows = []
    original = runner.heads.logits

    def logits(decoder, hidden_RD):
        num_rows.append(len(hidden_RD))
        return original(decoder, hidden_RD)

    monkeypatch.setattr(runner.heads, "logits", logits)
    make_llm(max_tokens_per_step=8, max_num_sequences=4).generate(
        [list(range(1, 30)), [1, 2]], SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
    )
    assert sum(num_rows) == 4


def test_generation_builds_no_graph():
    llm = make_llm()
    llm.generate([[1, 2]], GREEDY)
    assert all(parameter.grad is None for parameter in llm.model.parameters())
    stored = [t for layer in llm.core.runner.cache.tokens for t in layer.values()]
    assert stored
    assert not any(tensor.requires_grad for tensor in stored)
    hidden_TD = llm.model(torch.tensor([1]), _packed())
    assert hidden_TD.requires_grad


def _packed():
    from weft.nn.context import StepContext

    return StepContext.packed([1])


@pytest.mark.parametrize("kind", ["dense", "softcap", "latent", "rwkv"])
def test_keys_that_are_not_finite_stay_in_their_sequence(kind):
    decoder = tiny(kind)
    prompts = [[5, 6], [7, 8, 9], [3]]
    expected = make_llm(decoder=decoder).generate(prompts, GREEDY)
    drawn = {token for completion in expected for token in completion.tokens}
    bad = next(token for token in range(100, 300) if token not in drawn)
    kept = decoder.embed.weight.data[bad].clone()
    decoder.embed.weight.data[bad] = float("nan")
    try:
        llm = make_llm(decoder=decoder)
        got = llm.generate([[bad, 5, 6, 7, 8, 9], *prompts], GREEDY)
        again = llm.generate(prompts, GREEDY)  # in blocks the failed request has used
    finally:
        decoder.embed.weight.data[bad] = kept
    assert got[0].finish_reason is FinishReason.ERROR
    assert "not finite" in got[0].error
    assert tokens_of(got[1:]) == tokens_of(again) == tokens_of(expected)
    assert_nothing_left(llm.core)


def test_exception_in_prompt_scoring_fails_only_requests_that_asked(monkeypatch):
    prompts = make_prompts(3)
    expected = make_llm().generate(prompts, GREEDY)
    llm = make_llm()

    def broken(*arguments):
        raise IndexError("no such row")

    monkeypatch.setattr(llm.core.runner.prompts, "_take_in", broken)
    params = [GREEDY, dataclasses.replace(GREEDY, prompt_logprobs=1), GREEDY]
    got = llm.generate(prompts, params)
    assert got[1].error == "scoring the prompt failed: IndexError: no such row"
    assert [got[0].tokens, got[2].tokens] == [expected[0].tokens, expected[2].tokens]
    assert_nothing_left(llm.core)
