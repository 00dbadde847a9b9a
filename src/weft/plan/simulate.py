"""Serving on one engine without a model: a workload, a scheduler, a step-time model.

The short way to a simulation of one replica; ``weft.plan.simulator`` has fleets.
"""

from __future__ import annotations

from collections.abc import Iterable

from weft.plan.simulator.events import simulate_fleet
from weft.plan.simulator.fleet import Fleet, Pool
from weft.plan.simulator.result import Measure, SimulatedRequest, Simulation
from weft.plan.simulator.runner import LinearStepTime, SimRunner, StepTime
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.source import OpenLoop
from weft.sched.config import SchedulerConfig

__all__ = [
    "Arrival",
    "LinearStepTime",
    "Measure",
    "SimRunner",
    "SimulatedRequest",
    "Simulation",
    "StepTime",
    "simulate",
]


def simulate(
    arrivals: Iterable[Arrival], *, scheduler: SchedulerConfig, step_time: StepTime
) -> Simulation:
    """Serve a workload in virtual time.

    A request that arrives during a step is seen when the step ends, as in the engine.

    Raises:
        ConfigError: there are no arrivals.
        ContextLengthError: a prompt that can never fit.
    """
    return simulate_fleet(OpenLoop(tuple(arrivals)), Fleet((Pool(step_time, scheduler),)))
