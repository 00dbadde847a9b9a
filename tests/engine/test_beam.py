"""Beam search by forks of live requests finds what a search over full forward passes finds."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

from tests.engine.support import GREEDY, assert_nothing_left, make_llm, make_prompts
from tests.engine.test_weights import make_model
from weft.core.errors import ConfigError, ContextLengthError, ResourceError
from weft.engine.beam import Beam, BeamParams, BeamResult
from weft.models import heads
from weft.models.continuations import Continuations
from weft.models.decoder import Decoder
from weft.models.search import BeamConfig
from weft.models.search import beam_search as reference_search
from weft.nn.context import StepContext
from weft.spec.request import Request

PROMPTS = make_prompts(5)


@functools.cache
@torch.inference_mode()
def full_search(decoder: Decoder, prompt, params: BeamParams, eos_ids) -> list[BeamResult]:
    """The same rule, with every hypothesis computed from its first token at every step."""
    beam = Beam(params, eos_ids)
    while beam.rows:
        tops = []
        for row in beam.rows:
            tokens = torch.tensor([*prompt, *row.tokens])
            hidden_TD = decoder(tokens, StepContext.packed([len(tokens)]))
            log_probs_V = heads.logits(decoder, hidden_TD[-1:])[0].log_softmax(-1)
            top = log_probs_V.topk(beam.num_candidates)
            tops.append(list(zip(top.indices.tolist(), top.values.tolist(), strict=True)))
        beam.extend(tops)
    return beam.results


def likely_end(decoder: Decoder) -> tuple[int, ...]:
    """Tokens that hypotheses often draw, taken as end tokens."""
    drawn = make_llm(decoder=decoder).generate(PROMPTS, GREEDY)
    return tuple(sorted({completion.tokens[5] for completion in drawn})[:2])


@functools.cache
def ending_model() -> tuple[Decoder, tuple[int, ...]]:
    decoder = make_model(2)
    return decoder, likely_end(decoder)


def ending_llm(**config):
    """An engine whose model's end tokens come up within a few steps."""
    decoder, eos_ids = ending_model()
    llm = make_llm(decoder=decoder, **config)
    llm.core.eos_ids = eos_ids
    return llm, eos_ids


def check_equal(got: list[BeamResult], expected: list[BeamResult]) -> None:
    assert [result.tokens for result in got] == [result.tokens for result in expected]
    assert [result.finished for result in got] == [result.finished for result in expected]
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.score == pytest.approx(theirs.score, abs=1e-4)
        assert mine.log_prob == pytest.approx(theirs.log_prob, abs=1e-4)


@pytest.mark.pair("fork", "cache")
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("width", [1, 3])
def test_the_engine_finds_what_full_forward_passes_find(width, early_stopping, depth, cached):
    llm, eos_ids = ending_llm(overlap_depth=depth, enable_prefix_cache=cached, num_blocks=128)
    params = BeamParams(width, 10, early_stopping=early_stopping)
    found = llm.beam_search(PROMPTS, params)
    for prompt, results in zip(PROMPTS, found, strict=True):
        check_equal(results, full_search(llm.model, tuple(prompt), params, eos_ids))
    assert_nothing_left(llm.core)
    assert any(result.finished for results in found for result in results)


def test_without_end_tokens_both_searches_are_one():
    """Every hypothesis grows to the limit: no rule about ends, no penalty matters."""
    decoder, width = make_model(2), 4
    llm = make_llm(decoder=decoder)
    found = llm.beam_search(PROMPTS, BeamParams(width, 8, ignore_eos=True))
    rows = Continuations(decoder, PROMPTS, max_tokens=8, num_beams=width)
    limits = [8] * len(PROMPTS)
    expected = reference_search(rows, limits, (), BeamConfig(width, 0.0, num_results=width))
    for results, hypotheses in zip(found, expected, strict=True):
        assert [result.tokens for result in results] == [it.tokens for it in hypotheses]
        for result, hypothesis in zip(results, hypotheses, strict=True):
            assert result.log_prob == pytest.approx(hypothesis.log_prob, abs=1e-4)


@pytest.mark.parametrize("ends", [True, False])
def test_a_beam_of_one_is_greedy_search(ends):
    llm, _ = ending_llm()
    params = BeamParams(1, 10, ignore_eos=not ends)
    found = llm.beam_search(PROMPTS, params)
    for prompt, [result] in zip(PROMPTS, found, strict=True):
        greedy = dataclasses.replace(
            GREEDY, max_tokens=10, ignore_eos=True, stop_token_ids=llm.core.eos_ids if ends else ()
        )
        [expected] = llm.generate([prompt], greedy)
        tokens = expected.tokens[:-1] if result.finished else expected.tokens
        assert result.tokens == tokens
        assert result.log_prob == pytest.approx(sum(expected.logprobs), abs=1e-4)


def test_hypotheses_share_what_is_computed():
    """A step computes one token per hypothesis; without the cache nothing but forks can share."""
    llm = make_llm(decoder=make_model(2), enable_prefix_cache=False)
    prompt = list(range(20, 50))
    llm.beam_search([prompt], BeamParams(3, 8, ignore_eos=True))
    counters = llm.stats().scheduler.counters
    assert counters.num_computed_tokens == len(prompt) + 3 * 7


def test_searches_run_beside_other_requests():
    llm = make_llm(decoder=make_model(2), num_blocks=256)
    params = BeamParams(3, 6)
    alone = llm.beam_search([PROMPTS[4]], params)
    [expected] = make_llm(decoder=make_model(2)).generate([PROMPTS[3]], GREEDY)
    stream = llm.core.submit(Request("other", tuple(PROMPTS[3]), GREEDY))
    assert llm.beam_search([PROMPTS[4]], params)[0][0].tokens == alone[0][0].tokens
    while llm.core.has_work:
        llm.core.step()
    assert stream.completion().tokens == expected.tokens
    assert_nothing_left(llm.core)


def test_crowded_searches_are_slower_and_find_the_same():
    roomy = make_llm(decoder=make_model(2), num_blocks=256)
    crowded = make_llm(decoder=make_model(2), num_blocks=24, max_num_sequences=4)
    params = BeamParams(3, 6)
    for one, other in zip(
        crowded.beam_search(PROMPTS, params), roomy.beam_search(PROMPTS, params), strict=True
    ):
        check_equal(one, other)
    assert_nothing_left(crowded.core)


def test_more_penalty_prefers_longer_results():
    llm, _ = ending_llm()
    lengths = []
    for penalty in (-1.0, 0.0, 1.0, 3.0):
        found = llm.beam_search(PROMPTS, BeamParams(4, 12, penalty, "never"))
        lengths.append(sum(len(results[0].tokens) for results in found))
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (BeamParams(11), ConfigError, "at most 10"),
        (BeamParams(2, 1000), ContextLengthError, "set max_tokens to at most 98"),
    ],
)
def test_what_cannot_be_searched_is_refused(params, error, message):
    llm = make_llm(decoder=make_model(2))
    llm.core.eos_ids = (1,)
    with pytest.raises(error, match=message):
        llm.beam_search([list(range(30))], params)
    assert_nothing_left(llm.core)


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"max_tokens": 0}, {"early_stopping": "always"}], ids=str
)
def test_impossible_beams_are_refused(wrong):
    with pytest.raises(ConfigError):
        BeamParams(**wrong)


def test_a_failing_row_fails_its_search_and_leaves_nothing(monkeypatch):
    llm = make_llm(decoder=make_model(2))
    step = llm.core.step

    def failing():
        llm.core.abort_all()
        return step()

    monkeypatch.setattr(llm.core, "step", failing)
    with pytest.raises(ResourceError, match="broke off: a hypothesis ended with 'abort'"):
        llm.beam_search([PROMPTS[0]], BeamParams(2, 4))
    monkeypatch.undo()
    llm._settle()
    assert_nothing_left(llm.core)


@pytest.mark.parity
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("width", [2, 5])
def test_results_are_those_of_transformers(width, penalty, early_stopping, tmp_path):
    from transformers import LlamaForCausalLM

    from weft.checkpoint.hf import save_model

    llm, eos_ids = ending_llm(num_blocks=256)
    save_model(llm.model, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    params = BeamParams(width, 10, penalty, early_stopping)
    for prompt, results in zip(PROMPTS, llm.beam_search(PROMPTS, params), strict=True):
        answer = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            num_beams=width, num_return_sequences=width, max_new_tokens=10, do_sample=False,
            length_penalty=penalty, early_stopping=early_stopping, eos_token_id=list(eos_ids),
            pad_token_id=0, output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
        for index, result in enumerate(results):
            tokens = answer.sequences[index, len(prompt) :].tolist()
            size = len(result.tokens)
            assert tuple(tokens[:size]) == result.tokens
            if result.finished:
                assert tokens[size] in eos_ids
            score = float(answer.sequences_scores[index])
            assert result.score == pytest.approx(score, abs=1e-4)
