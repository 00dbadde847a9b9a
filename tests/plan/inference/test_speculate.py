from __future__ import annotations

import random

import pytest

from tests.plan.inference.support import FP8, make_model
from weft.plan.inference.speculate import speculation_curve
from weft.plan.speculation import expected_tokens


def test_drafting_pays_in_small_batches_and_not_in_large_ones():
    target = make_model("Llama-3.1-70B", "H200", 2, storage=FP8)
    draft = make_model("Llama-3.1-8B", "H200", 2, storage=FP8)
    curve = speculation_curve(
        target, draft, acceptance=0.7, context=1000, batches=(1, 8, 64, 512, 2048)
    )
    gains = [point.speed_up for point in curve]
    assert gains[0] > 1.3
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] == 1.0
    assert curve[-1].num_drafted == 0


def test_free_drafts_pay_more_and_better_guesses_too():
    target = make_model("Llama-3.1-8B")
    curves = {
        alpha: speculation_curve(target, None, acceptance=alpha, context=500, batches=(4,))[0]
        for alpha in (0.3, 0.6, 0.9)
    }
    gains = [curves[alpha].speed_up for alpha in (0.3, 0.6, 0.9)]
    assert gains == sorted(gains)
    assert curves[0.9].num_drafted > curves[0.3].num_drafted


def test_tokens_per_step_are_those_of_independent_guesses():
    """PM23: 1 + 0.7 + 0.49 + 0.343 = 2.533."""
    rng, num = random.Random(0), 40_000
    total = 0
    for _ in range(num):
        kept = 0
        while kept < 3 and rng.random() < 0.7:
            kept += 1
        total += kept + 1
    assert total / num == pytest.approx(expected_tokens(0.7, 3), rel=0.01)
    assert expected_tokens(0.7, 3) == pytest.approx(2.533)
