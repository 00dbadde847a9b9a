"""Prompt lookup finds what followed the longest suffix that occurred before."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.engine.speculation.config import NgramConfig
from weft.engine.speculation.ngram import NgramIndex
from weft.engine.speculation.reference import verify_same_draw
from weft.sched.plan import Draft


def _plain_guess(tokens: list[int], config: NgramConfig, num_tokens: int) -> tuple[int, ...]:
    """Look at every place, longest suffix first, latest place first."""
    for length in range(config.max_lookup, config.min_lookup - 1, -1):
        for end in range(len(tokens) - 1, length - 1, -1):
            if tokens[end - length : end] == tokens[len(tokens) - length :]:
                copied = list(tokens)
                for _ in range(num_tokens):
                    copied.append(copied[end + len(copied) - len(tokens)])
                return tuple(copied[len(tokens) :])
    return ()


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 4), st.integers(0, 3))
def test_the_index_finds_what_a_search_finds(tokens, min_lookup, more):
    config = NgramConfig(min_lookup + more, min_lookup)
    index = NgramIndex(tokens[:10], config)
    index.extend(tokens[10:])
    assert index.guess(5) == _plain_guess(tokens, config, 5)


def test_more_than_nine_in_ten_guesses_hold_when_a_text_is_copied():
    source = np.random.default_rng(0).integers(0, 500, 300).tolist()
    index = NgramIndex([*source, -7], NgramConfig(max_lookup=4))
    done, num_guessed, num_held = 0, 0, 0
    while done < len(source):
        guesses = index.guess(5)[: len(source) - done - 1]
        drawn = verify_same_draw(Draft(guesses), lambda behind, at=done: source[at + len(behind)])
        num_guessed += len(guesses)
        num_held += len(drawn) - 1
        index.extend(drawn)
        done += len(drawn)
    assert num_held / num_guessed > 0.9


def test_counting_pairs_gives_the_likeliest_follower():
    """P(eat | like) = 4/5 where "like" is followed by "eat" four times and by "see" once."""
    like, eat, see, stop = range(4)
    corpus = [like, eat, stop] * 4 + [like, see, stop]
    followers = Counter(b for a, b in pairwise(corpus) if a == like)
    assert followers[eat] / followers.total() == pytest.approx(0.80)
    index = NgramIndex([like, eat, stop, like], NgramConfig(max_lookup=1))
    assert index.guess(2) == (eat, stop)


def test_a_period_goes_on_as_long_as_asked():
    assert NgramIndex([1, 2, 1, 2, 1], NgramConfig()).guess(5) == (2, 1, 2, 1, 2)


def test_no_guess_without_a_repetition():
    assert NgramIndex([1, 2, 3], NgramConfig()).guess(4) == ()


def test_lookups_have_an_order():
    with pytest.raises(ConfigError, match="max_lookup"):
        NgramConfig(max_lookup=1, min_lookup=2)
