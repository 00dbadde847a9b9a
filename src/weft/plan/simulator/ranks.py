"""Data-parallel ranks in lockstep: every step lasts as long as its slowest rank.

With data-parallel attention and expert parallelism the ranks exchange tokens in every layer, so a
rank with long contexts holds up all others. Which rank gets which request then decides how long a
batch takes; the price of a request is quadratic in its prompt, so counting requests is not enough.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.plan.simulator.runner import SimRunner, StepTime
from weft.plan.workload.arrival import Arrival
from weft.sched.config import SchedulerConfig
from weft.sched.loop import ServingLoop, VirtualClock
from weft.sched.scheduler import Scheduler


@dataclass(frozen=True)
class RankRun:
    """One batch over all ranks.

    Attributes:
        makespan_s: Until the last token of the last rank.
        idle_share: Share of rank time spent waiting for others.
        num_steps: Steps in lockstep.
    """

    makespan_s: float
    idle_share: float
    num_steps: int


def assign_in_turn(num_requests: int, num_ranks: int) -> list[int]:
    """Give requests to ranks one after the other."""
    return [index % num_ranks for index in range(num_requests)]


def assign_by_cost(costs: Sequence[float], num_ranks: int) -> list[int]:
    """Give the dearest request first, each to the rank with the least work.

    No rank carries more than 4/3 of the best possible (longest processing time first; Graham
    1969).

    Args:
        costs: What each request takes, such as its attention FLOPs.
        num_ranks: Ranks to share them.
    """
    ranks = [(0.0, rank) for rank in range(num_ranks)]
    assignment = [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        load, rank = heapq.heappop(ranks)
        assignment[index] = rank
        heapq.heappush(ranks, (load + costs[index], rank))
    return assignment


def run_ranks(
    arrivals: Sequence[Arrival],
    assignment: Sequence[int],
    *,
    scheduler: SchedulerConfig,
    step_time: StepTime,
) -> RankRun:
    """Serve a batch on ranks that each run the engine's scheduler, in lockstep.

    Args:
        arrivals: The batch; times are ignored, all are there from the start.
        assignment: Rank of each request.
        scheduler: Sizes and limits of each rank.
        step_time: How long a rank takes for its part of a step.

    Raises:
        ConfigError: not every request has a rank.
    """
    if len(assignment) != len(arrivals) or not arrivals:
        raise ConfigError(
            f"{len(arrivals)} requests, {len(assignment)} ranks", fix="assign every request"
        )
    clocks = [VirtualClock() for _ in range(max(assignment) + 1)]
    loops = [ServingLoop(Scheduler(scheduler), SimRunner(c, step_time), c) for c in clocks]
    for index, (arrival, rank) in enumerate(zip(arrivals, assignment, strict=True)):
        loops[rank].submit(arrival.request(index))
    busy_s, num_steps = 0.0, 0
    while any(loop.has_work for loop in loops):
        start_s = clocks[0].now()
        for loop in loops:
            loop.step()
            if loop.failure is not None:
                raise loop.failure
        busy_s += sum(clock.now() - start_s for clock in clocks)
        end_s = max(clock.now() for clock in clocks)
        num_steps += end_s > start_s
        for clock in clocks:
            clock.sleep_until(end_s)
    makespan_s = clocks[0].now()
    return RankRun(makespan_s, 1.0 - busy_s / (makespan_s * len(clocks)), num_steps)
