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

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from weft.serve.backend import Stats
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
        names, values = list(self._labels), list(self._labels.values())
        for name, (text, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=names)
            gauge.add_metric(values, read(stats))
            yield gauge
        for name, (text, read) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=names)
            counter.add_metric(values, read(stats))
            yield counter


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
