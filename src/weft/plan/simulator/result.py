"""What a simulation found: requests, replicas, steps, and the figures people ask for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from weft.core.errors import ConfigError
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.log import RequestRecord
from weft.sched.stats import Counters, SchedulerStats

Measure = Literal["ttft_s", "tpot_s", "latency_s"]


@dataclass
class SimulatedRequest:
    """What happened to one request; times in seconds from the start of the simulation.

    Attributes:
        arrival: As asked.
        refused: The queue was full or no replica was left; nothing else counts.
        first_token_s: When its first token was there.
        finish_s: When its last token was there.
        num_output_tokens: Tokens it got.
        num_cached_tokens: Prompt tokens found in the prefix cache of the first replica.
        replicas: Where it was, in order; more than one after a transfer or a failure.
    """

    arrival: Arrival
    refused: bool = False
    first_token_s: float = 0.0
    finish_s: float = 0.0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0
    replicas: tuple[int, ...] = ()

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

    def record(self) -> RequestRecord:
        """Return the request as a line of a request log."""
        return RequestRecord(
            arrival_s=self.arrival.time_s,
            num_prompt_tokens=self.arrival.num_prompt_tokens,
            num_output_tokens=self.num_output_tokens,
            first_token_s=self.first_token_s,
            finish_s=self.finish_s,
            num_cached_tokens=self.num_cached_tokens,
        )


@dataclass(frozen=True)
class ServiceLevel:
    """What a request must keep to count as good; none means no limit.

    Attributes:
        ttft_s: Most seconds to the first token.
        tpot_s: Most seconds per output token after it.
        latency_s: Most seconds end to end.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    latency_s: float | None = None

    def __post_init__(self) -> None:
        limits = [limit for limit in vars(self).values() if limit is not None]
        if not limits or min(limits) <= 0.0:
            raise ConfigError(f"{self} promises nothing", fix="give a limit above 0")

    def met_by(self, request: SimulatedRequest) -> bool:
        """Whether a request was served in time."""
        if request.refused:
            return False
        measured = {name: getattr(request, name) for name in vars(self)}
        return all(
            limit is None or measured[name] is None or measured[name] <= limit
            for name, limit in vars(self).items()
        )


@dataclass(frozen=True)
class StepRecord:
    """One step of one replica.

    Attributes:
        replica: Whose.
        start_s: When it was planned.
        end_s: When its tokens were there.
        num_tokens: Tokens computed.
        num_sequences: Sequences in it.
        num_waiting: Requests that were there and not in it.
        kv_usage: Fraction of the blocks in use after it.
    """

    replica: int
    start_s: float
    end_s: float
    num_tokens: int
    num_sequences: int
    num_waiting: int
    kv_usage: float


@dataclass(frozen=True)
class ReplicaResult:
    """What one replica did.

    Attributes:
        stats: Its scheduler's counters.
        busy_s: Seconds it was computing.
        held_s: Seconds it was not on standby: what is paid for.
    """

    stats: SchedulerStats
    busy_s: float
    held_s: float


@dataclass(frozen=True)
class Simulation:
    """A finished simulation.

    Attributes:
        requests: In order of arrival.
        duration_s: From the first arrival to the last token.
        replicas: By number.
        steps: In order of start, if they were asked for.
    """

    requests: tuple[SimulatedRequest, ...]
    duration_s: float
    replicas: tuple[ReplicaResult, ...]
    steps: tuple[StepRecord, ...] = ()

    @property
    def served(self) -> tuple[SimulatedRequest, ...]:
        """The requests that were not refused."""
        return tuple(request for request in self.requests if not request.refused)

    @cached_property
    def stats(self) -> SchedulerStats:
        """The schedulers' counters, summed over replicas."""
        return _sum_stats([replica.stats for replica in self.replicas])

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens per second."""
        return sum(request.num_output_tokens for request in self.served) / self.duration_s

    def percentile(self, measure: Measure, percent: float) -> float:
        """Return a percentile of a latency over the served requests; NaN if none has it.

        Args:
            measure: Which latency.
            percent: 0 to 100; 50 is the median.
        """
        values = self._values(measure)
        return float(np.percentile(values, percent)) if values else float("nan")

    def mean(self, measure: Measure) -> float:
        """Return the mean of a latency over the served requests; NaN if none has it."""
        values = self._values(measure)
        return float(np.mean(values)) if values else float("nan")

    def attainment(self, level: ServiceLevel) -> float:
        """Return the share of all requests, refused ones too, that kept a service level."""
        return sum(level.met_by(request) for request in self.requests) / len(self.requests)

    def goodput_per_s(self, level: ServiceLevel) -> float:
        """Return the requests per second that kept a service level."""
        return sum(level.met_by(request) for request in self.requests) / self.duration_s

    @property
    def max_over_mean_load(self) -> float:
        """Busiest replica's computed tokens over the mean; 1 is perfect balance."""
        loads = [replica.stats.counters.num_computed_tokens for replica in self.replicas]
        return max(loads) / max(sum(loads) / len(loads), 1e-12)

    def _values(self, measure: Measure) -> list[float]:
        values = (getattr(request, measure) for request in self.served)
        return [value for value in values if value is not None]


def _sum_stats(stats: list[SchedulerStats]) -> SchedulerStats:
    counters = Counters()
    for one in stats:
        for name, value in vars(one.counters).items():
            setattr(counters, name, getattr(counters, name) + value)
    return SchedulerStats(
        num_running=sum(one.num_running for one in stats),
        num_waiting=sum(one.num_waiting for one in stats),
        num_blocks=sum(one.num_blocks for one in stats),
        num_used_blocks=sum(one.num_used_blocks for one in stats),
        num_cached_blocks=sum(one.num_cached_blocks for one in stats),
        num_blank_blocks=sum(one.num_blank_blocks for one in stats),
        counters=counters,
    )
