from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.plan.simulator.events import simulate_fleet
from weft.plan.simulator.fleet import Fleet, Pool
from weft.plan.simulator.result import ServiceLevel, SimulatedRequest
from weft.plan.simulator.runner import LinearStepTime
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.log import log_arrivals
from weft.plan.workload.source import OpenLoop
from weft.sched.config import SchedulerConfig

CONFIG = SchedulerConfig(num_blocks=64, max_context=256, max_num_sequences=2)


def finished(ttft_s: float, tpot_s: float, num: int = 11) -> SimulatedRequest:
    arrival = Arrival(1.0, 8, num)
    return SimulatedRequest(
        arrival, False, 1.0 + ttft_s, 1.0 + ttft_s + (num - 1) * tpot_s, num_output_tokens=num
    )


def test_a_level_is_kept_only_if_every_limit_is():
    level = ServiceLevel(ttft_s=0.5, tpot_s=0.05)
    assert level.met_by(finished(0.4, 0.04))
    assert not level.met_by(finished(0.6, 0.04))
    assert not level.met_by(finished(0.4, 0.06))
    assert ServiceLevel(latency_s=1.0).met_by(finished(0.4, 0.05))
    assert level.met_by(finished(0.4, 9.0, num=1))  # one token has no time per further token


def test_a_refused_request_keeps_no_level():
    assert not ServiceLevel(ttft_s=1.0).met_by(SimulatedRequest(Arrival(0.0, 1, 1), refused=True))


def test_a_level_promises_something():
    for make in (ServiceLevel, lambda: ServiceLevel(ttft_s=0.0)):
        with pytest.raises(ConfigError, match="promises nothing"):
            make()


def test_goodput_counts_what_was_in_time():
    # One second a step, two at a time: the first tokens come after 1, 1, 2, 2 seconds.
    arrivals = tuple(Arrival(0.0, 4, 1) for _ in range(4))
    simulation = simulate_fleet(OpenLoop(arrivals), Fleet((Pool(LinearStepTime(1.0), CONFIG),)))
    level = ServiceLevel(ttft_s=1.5)
    assert simulation.attainment(level) == 0.5
    assert simulation.goodput_per_s(level) == pytest.approx(2 / 2.0)
    assert simulation.mean("ttft_s") == pytest.approx(1.5)
    assert simulation.percentile("ttft_s", 100) == 2.0


def test_the_log_of_a_simulation_is_a_workload_of_the_same_requests():
    arrivals = tuple(Arrival(0.5 * i, 4 + i, 1 + i) for i in range(4))
    simulation = simulate_fleet(OpenLoop(arrivals), Fleet((Pool(LinearStepTime(0.1), CONFIG),)))
    again = log_arrivals(request.record() for request in simulation.requests)
    assert [(a.time_s, a.num_prompt_tokens, a.num_output_tokens) for a in again] == [
        (a.time_s, a.num_prompt_tokens, a.num_output_tokens) for a in arrivals
    ]
