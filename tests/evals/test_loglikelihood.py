from __future__ import annotations

import math

import pytest
import torch

from tests.evals.support import ENGINE, tiny_model, tokenizer, uniform_model
from weft.core.errors import ContextLengthError
from weft.engine.llm import LLM
from weft.evals.loglikelihood import score_requests
from weft.evals.requests import LogLikelihood
from weft.models.heads import logits
from weft.nn.context import StepContext
from weft.spec.sampling import SamplingParams

REQUESTS = [
    LogLikelihood((5, 6, 7), (8, 9)),
    LogLikelihood((5,), (10, 11, 12, 13)),
    LogLikelihood((9, 9), (9,)),
]


def brute_force(model, request):
    """Feed growing prefixes and add up what each says of the next token."""
    total = 0.0
    tokens = list(request.context)
    for token in request.continuation:
        with torch.no_grad():
            hidden_TD = model(torch.tensor(tokens), StepContext.packed([len(tokens)]))
            total += float(logits(model, hidden_TD[-1:]).log_softmax(-1)[0, token])
        tokens.append(token)
    return total


@pytest.mark.parametrize("max_tokens", [1, 6, 1000])
def test_scores_equal_brute_force_however_they_are_batched(max_tokens):
    model = tiny_model()
    found = [s.log_prob for s in score_requests(model, REQUESTS, max_tokens=max_tokens)]
    assert found == pytest.approx([brute_force(model, r) for r in REQUESTS], abs=1e-4)


def test_uniform_model_scores_log_v_per_token():
    model = uniform_model()
    expected = [-len(r.continuation) * math.log(tokenizer().vocab_size) for r in REQUESTS]
    assert [s.log_prob for s in score_requests(model, REQUESTS)] == pytest.approx(expected)


def test_greedy_continuations_are_recognised():
    model = tiny_model()
    llm = LLM(model, None, ENGINE)
    sampling = SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True)
    (completion,) = llm.generate([[5, 6, 7]], sampling)
    other = tuple((t + 1) % 300 for t in completion.tokens)
    requests = [LogLikelihood((5, 6, 7), tokens) for tokens in (completion.tokens, other)]
    assert [s.is_greedy for s in score_requests(model, requests, greedy=True)] == [True, False]


def test_scores_equal_the_engines_log_probs():
    model = tiny_model()
    sampling = SamplingParams(max_tokens=6, seed=0, ignore_eos=True)
    (completion,) = LLM(model, None, ENGINE).generate([[5, 6, 7]], sampling)
    (score,) = score_requests(model, [LogLikelihood((5, 6, 7), completion.tokens)])
    assert score.log_prob == pytest.approx(sum(completion.logprobs), abs=1e-4)


def test_too_long_a_request_is_refused():
    with pytest.raises(ContextLengthError, match="request 0"):
        score_requests(tiny_model(context_length=8), [LogLikelihood((1,) * 8, (2, 3))])


def test_no_requests_have_no_scores():
    assert score_requests(tiny_model(), []) == []
