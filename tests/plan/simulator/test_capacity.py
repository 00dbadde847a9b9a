from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.plan.simulator.capacity import find_capacity
from weft.plan.simulator.events import simulate_fleet
from weft.plan.simulator.fleet import Fleet, Pool
from weft.plan.simulator.result import ServiceLevel, Simulation
from weft.plan.simulator.runner import LinearStepTime
from weft.plan.workload.arrivals import fixed_content, gamma_arrivals
from weft.plan.workload.source import OpenLoop
from weft.sched.config import SchedulerConfig

CONFIG = SchedulerConfig(num_blocks=64, max_context=256, max_num_sequences=1, max_waiting=10_000)
LEVEL = ServiceLevel(ttft_s=0.5)


def regular(num_replicas: int = 1):
    """Requests like a clock, 0.1 s each, one at a time: a replica bears 10 per second."""

    def simulate_at(rate_per_s: float) -> Simulation:
        arrivals = gamma_arrivals(
            fixed_content(4, 1), num_requests=400, rate_per_s=rate_per_s, variation=0.0
        )
        fleet = Fleet((Pool(LinearStepTime(0.1), CONFIG, num_replicas),))
        return simulate_fleet(OpenLoop(arrivals), fleet)

    return simulate_at


@pytest.mark.parametrize("first", [0.5, 40.0])
def test_capacity_of_a_clock_is_the_service_rate(first):
    capacity = find_capacity(regular(), LEVEL, first_rate_per_s=first)
    assert capacity.rate_per_s == pytest.approx(10.0, rel=0.03)
    assert capacity.rate_per_s < capacity.failed_rate_per_s <= 1.02 * capacity.rate_per_s


def test_capacity_grows_with_replicas():
    rates = [find_capacity(regular(num), LEVEL).rate_per_s for num in (1, 2, 4)]
    assert rates[1] == pytest.approx(2 * rates[0], rel=0.05)
    assert rates[2] == pytest.approx(4 * rates[0], rel=0.05)


def test_a_level_nobody_can_keep_has_no_capacity():
    capacity = find_capacity(regular(), ServiceLevel(ttft_s=0.01), max_simulations=8)
    assert capacity.rate_per_s == 0.0
    assert capacity.num_simulations == 8


def test_impossible_searches_are_refused():
    with pytest.raises(ConfigError, match="attainment 0"):
        find_capacity(regular(), LEVEL, attainment=0.0)
