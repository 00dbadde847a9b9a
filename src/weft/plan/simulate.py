"""Serving without a model: the engine's own loop and scheduler on a virtual clock.

A discrete-event simulation in which nothing is imitated but time: requests arrive, the real
`Scheduler` plans every step (prefix cache, chunking, preemption, refusals), and the runner,
instead of computing, lets the clock pass by what a step-time model says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from weft.core.errors import ConfigError, QueueFullError
from weft.sched.config import SchedulerConfig
from weft.sched.loop import ServingLoop, VirtualClock
from weft.sched.plan import Sampled, StepPlan, StepResult
from weft.sched.scheduler import Scheduler
from weft.sched.stats import SchedulerStats
from weft.spec import Request, SamplingParams

StepTime = Callable[[StepPlan], float]
"""Seconds that one step takes."""

Measure = Literal["ttft_s", "tpot_s", "latency_s"]

# Tokens of different origin never meet in the prefix cache: the highest bits say where one is from.
_SHARED, _OWN, _DRAWN = 0, 1 << 60, 2 << 60


@dataclass(frozen=True)
class LinearStepTime:
    """Step time as a base plus a price per computed token and per token attended to.

    Attributes:
        base_s: Of every step: reading the weights, launching kernels, scheduling.
        per_token_s: For each token a step computes.
        per_context_token_s: For each token in the contexts of a step's sequences.
    """

    base_s: float
    per_token_s: float = 0.0
    per_context_token_s: float = 0.0

    def __post_init__(self) -> None:
        if self.base_s <= 0.0 or min(self.per_token_s, self.per_context_token_s) < 0.0:
            raise ConfigError(
                f"{self}: a step takes time, and a token cannot take less than none",
                fix="give base_s above 0 and prices of at least 0",
            )

    def __call__(self, plan: StepPlan) -> float:
        """Return the seconds of one step."""
        num_context_tokens = sum(item.start + len(item.tokens) for item in plan.items)
        return (
            self.base_s
            + self.per_token_s * plan.num_tokens
            + self.per_context_token_s * num_context_tokens
        )


class SimRunner:
    """A runner that computes nothing and lets the predicted time pass."""

    def __init__(self, clock: VirtualClock, step_time: StepTime) -> None:
        self.clock = clock
        self.step_time = step_time

    def execute(self, plan: StepPlan) -> StepResult:
        """Advance the clock; answer each sampling item with a token nobody else has drawn."""
        self.clock.advance(self.step_time(plan))
        return StepResult(
            {
                item.id: Sampled(_token(_DRAWN, item.id, item.start + len(item.tokens)), 0.0)
                for item in plan.items
                if item.sample
            }
        )

    def forget(self, ids: tuple[int, ...]) -> None:
        """Do nothing: this runner remembers no sequence."""


@dataclass(frozen=True)
class Arrival:
    """One request of a workload.

    Attributes:
        time_s: When it arrives, from the start of the simulation.
        num_prompt_tokens: Length of its prompt.
        num_output_tokens: Tokens it generates, unless the context ends before.
        num_shared_tokens: So many prompt tokens are those of every request of its group, such as
            a system prompt.
        group: Which shared beginning it has.
    """

    time_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    num_shared_tokens: int = 0
    group: int = 0

    def __post_init__(self) -> None:
        if min(self.num_prompt_tokens, self.num_output_tokens) < 1 or self.time_s < 0.0:
            raise ConfigError(
                f"{self} cannot arrive", fix="give a time >= 0, a prompt and at least one new token"
            )
        if not 0 <= self.num_shared_tokens <= self.num_prompt_tokens:
            raise ConfigError(
                f"{self.num_shared_tokens} of {self.num_prompt_tokens} prompt tokens are shared",
                fix="share at most the whole prompt",
            )

    def request(self, index: int) -> Request:
        """Return the request number ``index`` with made-up tokens."""
        shared = (_token(_SHARED, self.group, i) for i in range(self.num_shared_tokens))
        own = (
            _token(_OWN, index, i) for i in range(self.num_shared_tokens, self.num_prompt_tokens)
        )
        return Request(
            id=str(index),
            tokens=(*shared, *own),
            sampling=SamplingParams(max_tokens=self.num_output_tokens, ignore_eos=True, seed=0),
            arrival_s=self.time_s,
        )


@dataclass
class SimulatedRequest:
    """What happened to one request; times in seconds from the start of the simulation.

    Attributes:
        arrival: As asked.
        refused: The queue was full; nothing else was done.
        first_token_s: When its first token was there.
        finish_s: When its last token was there.
        num_output_tokens: Tokens it got.
        num_cached_tokens: Prompt tokens found in the prefix cache.
    """

    arrival: Arrival
    refused: bool = False
    first_token_s: float = 0.0
    finish_s: float = 0.0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0

    @property
    def ttft_s(self) -> float:
        """Time to first token: from arrival, waiting included."""
        return self.first_token_s - self.arrival.time_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first; none if there was only one."""
        if self.num_output_tokens < 2:
            return None
        return (self.finish_s - self.first_token_s) / (self.num_output_tokens - 1)

    @property
    def latency_s(self) -> float:
        """End to end."""
        return self.finish_s - self.arrival.time_s


@dataclass(frozen=True)
class Simulation:
    """A finished simulation.

    Attributes:
        requests: In order of arrival.
        duration_s: From the first arrival to the last token.
        stats: The scheduler's own counters.
    """

    requests: tuple[SimulatedRequest, ...]
    duration_s: float
    stats: SchedulerStats

    @property
    def served(self) -> tuple[SimulatedRequest, ...]:
        """The requests that were not refused."""
        return tuple(request for request in self.requests if not request.refused)

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens per second."""
        return self.stats.counters.num_generated_tokens / self.duration_s

    def percentile(self, measure: Measure, percent: float) -> float:
        """Return a percentile of a latency over the served requests; NaN if none has it.

        Args:
            measure: Which latency.
            percent: 0 to 100; 50 is the median.
        """
        values = [getattr(request, measure) for request in self.served]
        values = [value for value in values if value is not None]
        return float(np.percentile(values, percent)) if values else float("nan")


def simulate(
    arrivals: Iterable[Arrival], *, scheduler: SchedulerConfig, step_time: StepTime
) -> Simulation:
    """Serve a workload in virtual time.

    A request that arrives during a step is seen when the step ends, as in the engine.

    Raises:
        ConfigError: there are no arrivals.
        ContextLengthError: a prompt that can never fit.
    """
    requests = tuple(
        SimulatedRequest(arrival) for arrival in sorted(arrivals, key=lambda a: a.time_s)
    )
    if not requests:
        raise ConfigError("the workload is empty", fix="give at least one Arrival")
    clock = VirtualClock()
    loop = ServingLoop(Scheduler(scheduler), SimRunner(clock, step_time), clock)
    pending = deque(enumerate(requests))
    while pending or loop.has_work:
        if not loop.has_work:
            clock.sleep_until(pending[0][1].arrival.time_s)
        while pending and pending[0][1].arrival.time_s <= clock.now():
            _submit(loop, *pending.popleft())
        _step(loop, requests)
    duration_s = clock.now() - requests[0].arrival.time_s
    return Simulation(requests, duration_s, loop.scheduler.stats())


def _submit(loop: ServingLoop, index: int, request: SimulatedRequest) -> None:
    try:
        loop.submit(request.arrival.request(index))
    except QueueFullError:
        request.refused = True


def _step(loop: ServingLoop, requests: tuple[SimulatedRequest, ...]) -> None:
    updates = loop.step()
    if loop.failure is not None:
        raise loop.failure
    now_s = loop.clock.now()
    for update in updates:
        assert update.token is not None, "only tokens end a simulated request"
        request = requests[int(update.request_id)]
        if request.num_output_tokens == 0:
            request.first_token_s = now_s
            request.num_cached_tokens = update.num_cached_tokens
        request.num_output_tokens += 1
        request.finish_s = now_s


def _token(origin: int, owner: int, position: int) -> int:
    return origin | owner << 30 | position
