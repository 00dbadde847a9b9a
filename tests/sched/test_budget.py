from __future__ import annotations

import pytest

from tests.sched.test_scheduler import counts, make, step, submit
from weft.core.errors import ConfigError
from weft.sched.budget import StepTime

STEP_TIME = StepTime(base_s=0.010, per_token_s=0.001, per_context_token_s=0.0001)


def test_chunks_shrink_to_the_time_that_outputs_leave():
    scheduler = make(max_tokens_per_step=40, step_time=STEP_TIME, tpot_target_s=0.020)
    submit(scheduler, "a", 10)
    submit(scheduler, "b", 40)
    assert counts(step(scheduler)[0]) == {0: 10, 1: 30}, "no output waits"
    # 0.020 s - 0.010 s - (10 + 30) * 0.0001 s leave 5 tokens of 0.0011 s.
    assert counts(step(scheduler)[0]) == {0: 1, 1: 4}


def test_a_planned_step_takes_no_longer_than_the_target():
    scheduler = make(max_tokens_per_step=40, step_time=STEP_TIME, tpot_target_s=0.020)
    for index in range(3):
        submit(scheduler, f"{index}", 5)
    step(scheduler)
    submit(scheduler, "long", 50)
    plan = scheduler.schedule(0.0)
    assert len(plan.items) == 4
    context = sum(item.start + len(item.tokens) for item in plan.items)
    assert STEP_TIME.step_s(plan.num_tokens, context) <= 0.020 + 1e-9


def test_a_target_out_of_reach_still_lets_outputs_and_prompts_advance():
    scheduler = make(max_tokens_per_step=40, step_time=STEP_TIME, tpot_target_s=0.001)
    submit(scheduler, "a", 10)
    submit(scheduler, "b", 40)
    step(scheduler)
    assert counts(step(scheduler)[0]) == {0: 1, 1: 1}


def test_without_a_target_the_whole_budget_is_used():
    scheduler = make(max_tokens_per_step=40, step_time=STEP_TIME)
    submit(scheduler, "a", 10)
    submit(scheduler, "b", 60)
    step(scheduler)
    assert counts(step(scheduler)[0]) == {0: 1, 1: 30}


@pytest.mark.parametrize("changes", [{"tpot_target_s": 0.1}, {"tpot_target_s": -1.0}])
def test_a_target_needs_to_be_positive_and_a_step_time(changes):
    with pytest.raises(ConfigError, match="tpot_target_s is"):
        make(**changes, step_time=STEP_TIME if changes["tpot_target_s"] < 0 else None)


@pytest.mark.parametrize(
    "prices",
    [
        {"base_s": 0.0, "per_token_s": 1.0},
        {"base_s": 1.0, "per_token_s": -1.0},
        {"base_s": 1.0, "per_context_token_s": -1.0},
    ],
)
def test_prices_below_nothing_are_refused(prices):
    with pytest.raises(ConfigError, match="a step takes time"):
        StepTime(**prices)


def test_tokens_without_a_price_are_not_counted():
    assert StepTime(0.01).num_tokens(0.02, 500, most=64) == 64
    assert StepTime(0.03).num_tokens(0.02, 0, most=64) < 0
