"""Biases, allowed tokens and bad words, through the whole engine."""

from __future__ import annotations

import itertools

import pytest

from tests.engine.support import make_llm
from weft.core.errors import RequestError
from weft.spec import SamplingParams


def generate(prompt=(1, 2, 3), **fields):
    params = SamplingParams(max_tokens=12, ignore_eos=True, **fields)
    (completion,) = make_llm().generate([list(prompt)], params)
    return list(completion.tokens)


def test_a_large_bias_decides_and_a_ban_forbids():
    greedy = generate(temperature=0.0)
    assert generate(temperature=0.0, logit_bias=((9, 100.0),)) == [9] * 12
    assert greedy[0] not in generate(temperature=0.0, logit_bias=((greedy[0], -100.0),))


def test_only_allowed_tokens_come_out():
    assert set(generate(seed=3, allowed_token_ids=(4, 8, 15))) <= {4, 8, 15}


def test_no_bad_word_comes_out():
    greedy = generate(temperature=0.0)
    words = tuple(itertools.pairwise(greedy))
    changed = generate(temperature=0.0, bad_words=words)
    assert not set(words) & set(itertools.pairwise(changed))
    assert changed[0] == greedy[0]


def test_typical_sampling_is_reproducible():
    assert generate(seed=5, typical_p=0.5) == generate(seed=5, typical_p=0.5)


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": ((10**6, 1.0),)},
        {"allowed_token_ids": (-1,)},
        {"bad_words": ((1, 10**6),)},
    ],
)
def test_tokens_the_model_does_not_have_are_refused_by_parameter(fields):
    with pytest.raises(RequestError) as caught:
        generate(**fields)
    assert caught.value.param == next(iter(fields))
