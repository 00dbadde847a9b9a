"""Contrastive search, against the formula on whole forward passes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.engine.support import GREEDY, make_llm, make_prompts
from tests.engine.test_weights import make_model
from weft.core.errors import ConfigError, ContextLengthError
from weft.engine.contrastive import ContrastiveParams
from weft.models import heads
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.spec.families import spec_from_hf

PROMPTS = make_prompts(5)


@torch.inference_mode()
def plain(decoder: Decoder, prompt, params: ContrastiveParams, eos_ids=()) -> tuple[int, ...]:
    """Equation 5 as it stands: every candidate's hidden state from a pass over all its tokens."""

    def forward(tokens):
        hidden_TD = decoder(torch.tensor(tokens), StepContext.packed([len(tokens)]))
        return hidden_TD, heads.logits(decoder, hidden_TD[-1:])[0]

    drawn: list[int] = []
    while len(drawn) < params.max_tokens:
        history_SD, logits_V = forward([*prompt, *drawn])
        top = logits_V.softmax(-1).topk(params.k)
        scores = []
        for token, probability in zip(top.indices.tolist(), top.values.tolist(), strict=True):
            hidden_D = forward([*prompt, *drawn, token])[0][-1:]
            likeness = torch.cosine_similarity(hidden_D, history_SD).max()
            scores.append((1 - params.alpha) * probability - params.alpha * float(likeness))
        token = int(top.indices[scores.index(max(scores))])
        if token in eos_ids:
            break
        drawn.append(token)
    return tuple(drawn)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("k", [1, 4])
def test_tokens_are_those_of_the_formula(k, alpha):
    llm = make_llm(decoder=make_model(2))
    params = ContrastiveParams(k, alpha, 10, ignore_eos=True)
    results = llm.contrastive_search(PROMPTS, params)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.tokens == plain(llm.model, prompt, params)
        assert not result.finished


def test_recurrent_states_follow_the_chosen_candidates():
    config = {
        "model_type": "mamba2", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2,
        "expand": 2, "head_dim": 8, "num_heads": 8, "state_size": 8, "n_groups": 1,
    }  # fmt: skip
    decoder = Decoder(spec_from_hf(config), seed=0).eval()
    llm = make_llm(decoder=decoder)
    params = ContrastiveParams(3, 0.6, 8, ignore_eos=True)
    for prompt, result in zip(PROMPTS, llm.contrastive_search(PROMPTS, params), strict=True):
        assert result.tokens == plain(decoder, prompt, params)


@pytest.mark.parametrize("params", [ContrastiveParams(1, 0.6, 12), ContrastiveParams(4, 0.0, 12)])
def test_one_candidate_or_no_penalty_is_greedy_search(params):
    llm = make_llm(decoder=make_model(2))
    params = dataclasses.replace(params, ignore_eos=True)
    expected = [completion.tokens for completion in llm.generate(PROMPTS, GREEDY)]
    assert [result.tokens for result in llm.contrastive_search(PROMPTS, params)] == expected


def test_an_end_token_ends_one_prompt_and_no_other():
    llm = make_llm(decoder=make_model(2))
    params = ContrastiveParams(4, 0.6, 10, ignore_eos=True)
    free = llm.contrastive_search(PROMPTS, params)
    eos_ids = (free[0].tokens[3],)
    llm.core.eos_ids = eos_ids
    params = dataclasses.replace(params, ignore_eos=False)
    for prompt, result in zip(PROMPTS, llm.contrastive_search(PROMPTS, params), strict=True):
        assert result.tokens == plain(llm.model, prompt, params, eos_ids)
        assert result.finished == (len(result.tokens) < 10)
    assert llm.contrastive_search([PROMPTS[0]], params)[0].finished


def test_a_penalty_breaks_a_loop():
    """A model that says one token again and again under greedy search."""
    decoder = make_model(2)
    with torch.no_grad():
        decoder.embed.weight.mul_(0.02)
        decoder.embed.weight[7:9] = torch.randn(2, 32, generator=torch.manual_seed(0))
    llm = make_llm(decoder=decoder)
    tokens = {
        alpha: llm.contrastive_search([[7, 7]], ContrastiveParams(5, alpha, 20, ignore_eos=True))[
            0
        ].tokens
        for alpha in (0.0, 0.9)
    }
    assert len(set(tokens[0.0])) < len(set(tokens[0.9]))


@pytest.mark.parametrize("wrong", [{"k": 0}, {"alpha": 1.1}, {"max_tokens": 0}], ids=str)
def test_impossible_choices_are_refused(wrong):
    with pytest.raises(ConfigError):
        ContrastiveParams(**wrong)


@pytest.mark.parametrize("prompt", [[], [5] * 120])
def test_what_does_not_fit_is_refused(prompt):
    with pytest.raises(ContextLengthError):
        make_llm().contrastive_search([prompt], ContrastiveParams(max_tokens=20))
