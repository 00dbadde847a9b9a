from __future__ import annotations

import json

import numpy as np
import pytest

from weft.core.errors import ConfigError
from weft.plan.simulator.chrome import chrome_trace, write_chrome_trace
from weft.plan.simulator.events import simulate_fleet
from weft.plan.simulator.fleet import Fleet, Pool
from weft.plan.simulator.result import Simulation
from weft.plan.simulator.runner import LinearStepTime
from weft.plan.simulator.series import queue_series
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.source import OpenLoop
from weft.sched.config import SchedulerConfig

CONFIG = SchedulerConfig(num_blocks=64, max_context=256, max_num_sequences=1, max_waiting=2)


def run(*, keep_steps: bool = True) -> Simulation:
    """Three requests at once and room for two: 1 s prompt step, 1 s per further token."""
    arrivals = tuple(Arrival(0.0, 4, 2) for _ in range(3))
    fleet = Fleet((Pool(LinearStepTime(1.0), CONFIG),))
    return simulate_fleet(OpenLoop(arrivals), fleet, keep_steps=keep_steps)


def test_queues_over_time():
    series = queue_series(run(), num_points=4)
    assert series.time_s == pytest.approx([0.5, 1.5, 2.5, 3.5])
    assert series.num_running == pytest.approx([1, 1, 1, 1])
    assert series.num_waiting == pytest.approx([1, 1, 0, 0])
    assert series.tokens_per_s == pytest.approx([4, 1, 4, 1])


@pytest.mark.parametrize("num_points", [1, 7, 50])
def test_any_number_of_points_holds_the_same_tokens(num_points):
    series = queue_series(run(), num_points=num_points)
    assert np.sum(series.tokens_per_s) * 4.0 / num_points == pytest.approx(10)


def test_a_series_needs_steps():
    with pytest.raises(ConfigError, match="0 steps"):
        queue_series(run(keep_steps=False))


def test_trace_has_a_slice_per_step_and_two_per_served_request(tmp_path):
    simulation = run()
    write_chrome_trace(tmp_path / "trace.json", simulation)
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert trace == chrome_trace(simulation)
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    steps = [event for event in slices if event["name"] == "step"]
    assert [(event["ts"], event["dur"]) for event in steps] == [
        (1e6 * second, 1e6) for second in range(4)
    ]
    assert len(slices) - len(steps) == 2 * 2  # the third request was refused
    first, output = (event for event in slices if event["pid"] == 1 and event["tid"] == 1)
    assert first["ts"] + first["dur"] == output["ts"] == 3e6
