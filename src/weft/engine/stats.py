"""What the engine measures of itself, on its own clock; ``/metrics`` renders a snapshot.

Definitions: time to first token runs from arrival to the first token; time per output token is
the mean interval after the first, one value per finished request; inter-token latency is every
single interval; end-to-end runs from arrival to the end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from weft.engine.speculation.counters import SpeculationStats
from weft.sched.stats import SchedulerStats

_LATENCY_BOUNDS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0),
)
_STEP_TOKEN_BOUNDS = tuple(float(2**power) for power in range(14))


@dataclass(frozen=True)
class HistogramSnapshot:
    """Counts per bucket, not cumulated; the last bucket is everything above the last bound."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def num_observations(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean of the observed values; 0 when there are none."""
        return self.total / max(self.num_observations, 1)


class Histogram:
    """Counts values in fixed buckets; a value equal to a bound belongs below it (Prometheus)."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def snapshot(self) -> HistogramSnapshot:
        """Return the counts now."""
        return HistogramSnapshot(self._bounds, tuple(self._counts), self._total)


@dataclass
class Timings:
    """The engine's histograms, all in seconds but the last."""

    time_to_first_token_s: Histogram = field(default_factory=lambda: Histogram(_LATENCY_BOUNDS_S))
    time_per_output_token_s: Histogram = field(default_factory=lambda: Histogram(_LATENCY_BOUNDS_S))
    inter_token_latency_s: Histogram = field(default_factory=lambda: Histogram(_LATENCY_BOUNDS_S))
    end_to_end_s: Histogram = field(default_factory=lambda: Histogram(_LATENCY_BOUNDS_S))
    step_s: Histogram = field(default_factory=lambda: Histogram(_LATENCY_BOUNDS_S))
    step_tokens: Histogram = field(default_factory=lambda: Histogram(_STEP_TOKEN_BOUNDS))


@dataclass
class RequestTimes:
    """When one request arrived and when it got its first and its latest token."""

    arrival_s: float
    first_token_s: float | None = None
    last_token_s: float = 0.0
    num_tokens: int = 0

    def token(self, now_s: float, timings: Timings) -> None:
        """Note a token."""
        if self.first_token_s is None:
            self.first_token_s = now_s
            timings.time_to_first_token_s.observe(now_s - self.arrival_s)
        else:
            timings.inter_token_latency_s.observe(now_s - self.last_token_s)
        self.last_token_s = now_s
        self.num_tokens += 1

    def end(self, now_s: float, timings: Timings) -> None:
        """Note the end."""
        timings.end_to_end_s.observe(now_s - self.arrival_s)
        if self.first_token_s is not None and self.num_tokens > 1:
            mean_s = (self.last_token_s - self.first_token_s) / (self.num_tokens - 1)
            timings.time_per_output_token_s.observe(mean_s)


@dataclass(frozen=True)
class EngineStats:
    """One look at an engine.

    Attributes:
        scheduler: Queue, running sequences, blocks, and token, prefix and preemption counters.
        weight_version: Version of the weights in use.
        num_failed_steps: Steps whose forward pass raised.
        timings: Histograms by name, as in ``Timings``.
        speculation: Drafts and guesses that held; none without speculation.
    """

    scheduler: SchedulerStats
    weight_version: int
    num_failed_steps: int
    timings: dict[str, HistogramSnapshot]
    speculation: SpeculationStats | None = None
