"""Prometheus metrics with vLLM's meanings under the prefix ``weft_``.

Gauges and engine counters come from the snapshot that a scrape asks the engine for, so its loop
does no metrics work. Times are taken here, on one monotonic clock, when deltas arrive:

- time to first token: first token minus arrival of the HTTP request;
- inter-token latency: each gap between two deltas of one sequence;
- end to end: last delta minus arrival.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from weft.serve.backend import SnapshotCounters, SpeculationStats, Stats, TierStats
from weft.spec.request import FinishReason

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
GAP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
LENGTH_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)

_GAUGES: dict[str, tuple[str, Callable[[Stats], float]]] = {
    "weft_num_requests_running": ("Requests being computed.", lambda s: s.scheduler.num_running),
    "weft_num_requests_waiting": ("Requests waiting for room.", lambda s: s.scheduler.num_waiting),
    "weft_kv_cache_usage_perc": ("KV cache in use; 1 is full.", lambda s: s.scheduler.kv_usage),
}
_COUNTERS: dict[str, tuple[str, Callable[[Stats], float]]] = {
    "weft_prefix_cache_queries": (
        "Prompt tokens looked up in the prefix cache.",
        lambda s: s.scheduler.counters.num_prefix_queried_tokens,
    ),
    "weft_prefix_cache_hits": (
        "Prompt tokens found in the prefix cache.",
        lambda s: s.scheduler.counters.num_prefix_hit_tokens,
    ),
    "weft_num_preemptions": (
        "Sequences preempted.",
        lambda s: s.scheduler.counters.num_preemptions,
    ),
}
# Only of engines that have them.
_TIER_GAUGES: dict[str, tuple[str, Callable[[TierStats], float]]] = {
    "weft_host_tier_usage_perc": (
        "Host tier in use; 1 is full.",
        lambda t: t.num_used_host_blocks / max(t.num_host_blocks, 1),
    ),
    "weft_disk_tier_usage_perc": (
        "Disk tier in use; 1 is full.",
        lambda t: t.num_used_disk_blocks / max(t.num_disk_blocks, 1),
    ),
}
_TIER_COUNTERS: dict[str, tuple[str, Callable[[TierStats], float]]] = {
    "weft_tier_stored_blocks": (
        "Blocks copied from the device to the host.",
        lambda t: t.counters.num_stored_blocks,
    ),
    "weft_tier_loaded_blocks": (
        "Blocks copied from the host to the device.",
        lambda t: t.counters.num_loaded_blocks,
    ),
    "weft_tier_spilled_blocks": (
        "Blocks written to disk.",
        lambda t: t.counters.num_spilled_blocks,
    ),
    "weft_tier_fetched_blocks": (
        "Blocks read from disk.",
        lambda t: t.counters.num_fetched_blocks,
    ),
    "weft_tier_host_hit_tokens": (
        "Tokens whose blocks were read from the host.",
        lambda t: t.counters.num_host_hit_tokens,
    ),
    "weft_tier_disk_hit_tokens": (
        "Tokens whose blocks were read from disk.",
        lambda t: t.counters.num_disk_hit_tokens,
    ),
    "weft_tier_skipped_blocks": (
        "Blocks not kept or not read, as the host tier was in use.",
        lambda t: t.counters.num_skipped_blocks,
    ),
    "weft_tier_lost": (
        "Sequences computed again, as their blocks could not be read.",
        lambda t: t.counters.num_lost,
    ),
    "weft_tier_disk_failures": (
        "Times the disk tier was switched off.",
        lambda t: t.counters.num_disk_failures,
    ),
}
_SNAPSHOT_COUNTERS: dict[str, tuple[str, Callable[[SnapshotCounters], float]]] = {
    "weft_state_snapshots_saved": ("Recurrent states copied.", lambda s: s.num_saved),
    "weft_state_snapshots_restored": ("Recurrent states put back.", lambda s: s.num_restored),
    "weft_state_snapshots_skipped": (
        "Recurrent states not copied for lack of a slot.",
        lambda s: s.num_skipped,
    ),
}
_T = TypeVar("_T")
_SPECULATION: dict[str, tuple[str, Callable[[SpeculationStats], float]]] = {
    "weft_spec_decode_num_drafts": ("Drafts that were verified.", lambda s: s.num_drafts),
    "weft_spec_decode_num_draft_tokens": (
        "Guesses that were verified.",
        lambda s: s.num_draft_tokens,
    ),
    "weft_spec_decode_num_accepted_tokens": (
        "Guesses that held.",
        lambda s: s.num_accepted_tokens,
    ),
}


class EngineCollector:
    """Shows the engine's own numbers, as of the latest snapshot."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.stats: Stats | None = None
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        """Yield one metric family per number (called by prometheus-client)."""
        stats = self.stats
        if stats is None:
            return
        yield from self._families(GaugeMetricFamily, _GAUGES, stats)
        yield from self._families(CounterMetricFamily, _COUNTERS, stats)
        tiers, snapshots = stats.scheduler.tiers, stats.scheduler.snapshots
        if tiers is not None:
            yield from self._families(GaugeMetricFamily, _TIER_GAUGES, tiers)
            yield from self._families(CounterMetricFamily, _TIER_COUNTERS, tiers)
        if snapshots is not None:
            yield from self._families(CounterMetricFamily, _SNAPSHOT_COUNTERS, snapshots)
        if stats.speculation is not None:
            yield from self._families(CounterMetricFamily, _SPECULATION, stats.speculation)
            yield self._accepted_by_position(stats.speculation)

    def _accepted_by_position(self, stats: SpeculationStats) -> Metric:
        family = CounterMetricFamily(
            "weft_spec_decode_num_accepted_tokens_per_pos",
            "Guesses that held, by how many tokens ahead; the nearest is 0.",
            labels=[*self._labels, "position"],
        )
        for position, num_held in enumerate(stats.num_accepted_by_position):
            family.add_metric([*self._labels.values(), str(position)], num_held)
        return family

    def _families(
        self,
        kind: type[GaugeMetricFamily | CounterMetricFamily],
        table: dict[str, tuple[str, Callable[[_T], float]]],
        stats: _T,
    ) -> Iterator[Metric]:
        for name, (text, read) in table.items():
            family = kind(name, text, labels=list(self._labels))
            family.add_metric(list(self._labels.values()), read(stats))
            yield family


class RateMeter:
    """Tokens per second over the last few seconds."""

    def __init__(self, *, window_s: float = 5.0, clock: Callable[[], float] = time.monotonic):
        self._window_s = window_s
        self._clock = clock
        self._times: deque[tuple[float, int]] = deque()
        self._sum = 0

    def add(self, count: int = 1) -> None:
        """Count tokens made now."""
        self._times.append((self._clock(), count))
        self._sum += count
        self._forget()

    def rate(self) -> float:
        """Return tokens per second of the window, 0 when nothing happened in it."""
        self._forget()
        if not self._times:
            return 0.0
        # The first tokens of a quiet server are not averaged over time before them.
        span = max(self._clock() - self._times[0][0], 1.0)
        return self._sum / min(span, self._window_s)

    def _forget(self) -> None:
        start = self._clock() - self._window_s
        while self._times and self._times[0][0] < start:
            self._sum -= self._times.popleft()[1]


class ServerMetrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, model_name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.registry = CollectorRegistry()
        self.generation_rate = RateMeter(clock=clock)
        self._model = model_name
        self._engine = EngineCollector({"model_name": model_name})
        self.registry.register(self._engine)
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens received.")
        self._generated = self._counter("generation_tokens", "Tokens generated.")
        self._success = Counter(
            "weft_request_success",
            "Finished sequences by reason.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        self._ttft = self._histogram("time_to_first_token_seconds", LATENCY_BUCKETS_S)
        self._gap = self._histogram("inter_token_latency_seconds", GAP_BUCKETS_S)
        self._e2e = self._histogram("e2e_request_latency_seconds", LATENCY_BUCKETS_S)
        self._prompt_length = self._histogram("request_prompt_tokens", LENGTH_BUCKETS)
        self._output_length = self._histogram("request_generation_tokens", LENGTH_BUCKETS)

    def render(self, stats: Stats | None) -> bytes:
        """Return the exposition text of a scrape, given the engine's snapshot if there is one."""
        self._engine.stats = stats
        return generate_latest(self.registry)

    def timer(self, num_prompt_tokens: int, arrival_s: float) -> SequenceTimer:
        """Begin to measure one sequence."""
        return SequenceTimer(self, num_prompt_tokens, arrival_s)

    def _counter(self, name: str, text: str) -> Counter:
        family = Counter(f"weft_{name}", text, ["model_name"], registry=self.registry)
        return family.labels(self._model)

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        family = Histogram(
            f"weft_{name}",
            name.replace("_", " ").capitalize() + ".",
            ["model_name"],
            buckets=buckets,
            registry=self.registry,
        )
        return family.labels(self._model)


class SequenceTimer:
    """Turns the deltas of one sequence into intervals."""

    def __init__(self, metrics: ServerMetrics, num_prompt_tokens: int, arrival_s: float) -> None:
        self._metrics = metrics
        self._num_prompt_tokens = num_prompt_tokens
        self._arrival_s = arrival_s
        self._last_s: float | None = None
        self._num_tokens = 0
        self._finished = False
        metrics._prompt_tokens.inc(num_prompt_tokens)

    def token(self) -> None:
        """Record one new token."""
        now = self._metrics.clock()
        if self._last_s is None:
            self._metrics._ttft.observe(now - self._arrival_s)
        else:
            self._metrics._gap.observe(now - self._last_s)
        self._last_s = now
        self._num_tokens += 1
        self._metrics._generated.inc()
        self._metrics.generation_rate.add()

    def finish(self, reason: FinishReason) -> None:
        """Record the end, once."""
        if self._finished:
            return
        self._finished = True
        metrics = self._metrics
        metrics._success.labels(metrics._model, reason.value).inc()
        metrics._e2e.observe(metrics.clock() - self._arrival_s)
        metrics._prompt_length.observe(self._num_prompt_tokens)
        metrics._output_length.observe(self._num_tokens)
