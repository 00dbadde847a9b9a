"""Confidence-scheduled verification: the worked numbers, and the optimum of small cases."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.speculation.support import prompts, serve, trained
from weft.engine.speculation.config import SpeculationConfig
from weft.engine.speculation.lengths import survival, throughputs, verify_lengths
from weft.sched.budget import StepTime
from weft.spec import SamplingParams
from weft.spec.request import Request

CONFIDENCES = (0.4143, 0.3149, 0.3373, 0.3373)
STEPS_PER_S = {1: 100.0, 2: 95.0, 3: 88.0, 4: 78.0, 5: 70.0}


def test_worked_numbers_of_one_sequence():
    rates = throughputs(CONFIDENCES, STEPS_PER_S.__getitem__)
    assert [round(rate, 2) for rate in rates[1:4]] == [134.36, 135.94, 123.92]
    assert verify_lengths([CONFIDENCES], STEPS_PER_S.__getitem__) == [2]


def test_survival_is_the_running_product():
    assert survival([0.5, 0.5, 0.2]) == pytest.approx([0.5, 0.25, 0.05])


@given(
    st.lists(st.lists(st.floats(0.01, 0.99), max_size=3), min_size=1, max_size=3),
    st.floats(0.0, 0.4),
)
def test_no_other_lengths_are_faster(confidences, slope):
    """The rate rises, then falls, where the time of a step grows along a line."""

    def steps_per_s(num_rows: int) -> float:
        return 1.0 / (1.0 + slope * num_rows)

    def rate(lengths) -> float:
        tokens = sum(
            1.0 + sum(survival(one)[:length])
            for one, length in zip(confidences, lengths, strict=True)
        )
        return tokens * steps_per_s(len(confidences) + sum(lengths))

    best = max(map(rate, itertools.product(*(range(len(one) + 1) for one in confidences))))
    assert rate(verify_lengths(confidences, steps_per_s)) == pytest.approx(best, rel=1e-9)


def test_a_full_machine_verifies_nothing():
    assert verify_lengths([[0.9, 0.9]] * 4, lambda rows: 1.0 if rows <= 4 else 0.1) == [0] * 4


def test_an_engine_verifies_fewer_guesses_where_rows_are_dear():
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=20)
    requests = [Request(str(i), prompt, params) for i, prompt in enumerate(prompts(3))]
    plain, _ = serve(requests)
    counted = {}
    for name, per_token_s in (("free", 1e-9), ("dear", 0.2), ("too dear", 1e6)):
        config = SpeculationConfig(
            "draft", 5, step_time=StepTime(base_s=1.0, per_token_s=per_token_s)
        )
        got, core = serve(requests, config, drafter=trained())
        assert [ours.tokens for ours in got] == [theirs.tokens for theirs in plain]
        counted[name] = core.speculator.stats().num_draft_tokens
    assert counted["free"] > counted["dear"] > counted["too dear"] == 0
