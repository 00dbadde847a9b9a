from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.plan.mla_mode import MLAShape, absorbed_flops, expanded_flops, prefer_absorbed
from weft.plan.simulator.ranks import assign_by_cost, assign_in_turn, run_ranks
from weft.plan.simulator.runner import LinearStepTime
from weft.plan.workload.arrival import Arrival
from weft.sched.config import SchedulerConfig
from weft.sched.plan import StepPlan

CONFIG = SchedulerConfig(num_blocks=8192, max_context=40_000, max_tokens_per_step=40_000, seed=0)
SHAPE = MLAShape()


def mla_seconds(new: int, cached: int) -> float:
    count = absorbed_flops if prefer_absorbed(new, cached) else expanded_flops
    return count(SHAPE, new, cached).total / 400e12


def mla_step(plan: StepPlan) -> float:
    return 1e-5 + sum(mla_seconds(len(item.tokens), item.start) for item in plan.items)


def test_splitting_long_prompts_by_cost_shortens_the_batch():
    """W12: four long prompts among short ones; turns give all of them to one rank."""
    lengths = [16_000 if index % 4 == 0 else 500 for index in range(16)]
    arrivals = [Arrival(0.0, length, 1) for length in lengths]
    costs = [mla_seconds(length, 0) for length in lengths]
    naive, even = (
        run_ranks(arrivals, assignment, scheduler=CONFIG, step_time=mla_step)
        for assignment in (assign_in_turn(16, 4), assign_by_cost(costs, 4))
    )
    assert even.makespan_s < 0.35 * naive.makespan_s
    assert even.idle_share < 0.1 < 0.5 < naive.idle_share


def test_a_step_lasts_as_long_as_its_slowest_rank():
    run = run_ranks(
        [Arrival(0.0, 10, 1), Arrival(0.0, 40, 1)],
        [0, 1],
        scheduler=CONFIG,
        step_time=LinearStepTime(1.0, per_token_s=0.1),
    )
    assert run.makespan_s == pytest.approx(5.0)
    assert run.idle_share == pytest.approx(1 - (2.0 + 5.0) / 10.0)
    assert run.num_steps == 1


@given(st.lists(st.integers(1, 20), min_size=1, max_size=7), st.integers(1, 3))
def test_assignment_by_cost_is_within_four_thirds_of_the_best(costs, num_ranks):
    def largest(assignment) -> int:
        return max(
            sum(cost for cost, rank in zip(costs, assignment, strict=True) if rank == chosen)
            for chosen in range(num_ranks)
        )

    best = min(map(largest, itertools.product(range(num_ranks), repeat=len(costs))))
    assert largest(assign_by_cost(costs, num_ranks)) <= 4 / 3 * best


def test_every_request_needs_a_rank():
    with pytest.raises(ConfigError, match="1 requests, 0 ranks"):
        run_ranks([Arrival(0.0, 1, 1)], [], scheduler=CONFIG, step_time=mla_step)
