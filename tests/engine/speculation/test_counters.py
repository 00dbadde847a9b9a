"""Counters of what speculation did."""

from __future__ import annotations

import random

import pytest

from weft.engine.draw import Walk
from weft.engine.speculation.counters import Counters, SpeculationStats
from weft.engine.speculation.reference import verify_same_draw
from weft.plan.speculation import expected_tokens
from weft.sched.plan import Draft


def test_worked_value_of_three_guesses_at_seventy_percent():
    assert round(expected_tokens(0.7, 3), 3) == 2.533


def _num_toy_steps(seed: int) -> int:
    """Draw 18 characters; each of three guesses is right seven times in ten."""
    rng, text, done, num_steps = random.Random(seed), "speculative decode", 0, 0
    while done < len(text):
        ahead = text[done : done + 3]
        guess = Draft(tuple(ord(char) if rng.random() < 0.7 else 0 for char in ahead))
        drawn = verify_same_draw(guess, lambda behind, at=done: ord((text + " ")[at + len(behind)]))
        done += len(drawn)
        num_steps += 1
    return num_steps


def test_toy_text_of_18_characters_takes_9_steps():
    assert _num_toy_steps(seed=0) == 9
    mean = sum(map(_num_toy_steps, range(400))) / 400
    assert 18 / 2.533 < mean < 9


def test_counters_by_position():
    counters = Counters()
    held = [[], [0], [0, 1, 2]]
    counters.count(Walk(0, 0, 0, Draft((1, 2, 3)), held=guesses) for guesses in held)
    counters.count([Walk(0, 0, 0)])
    assert counters == Counters(3, 9, 4, [2, 1, 1])
    stats = SpeculationStats(3, 9, 4, (2, 1, 1))
    assert stats.acceptance_rate == pytest.approx(4 / 9)
    assert stats.tokens_per_draft == pytest.approx(1 + 4 / 3)
