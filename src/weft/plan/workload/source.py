"""Where requests come from while a simulation runs.

In an open loop requests arrive at their times, however slow the servers are. In a closed loop
every client waits for its answer before it asks again, so the load can never outrun the servers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from weft.core.errors import ConfigError
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.arrivals import Content


class Source(Protocol):
    """Requests of one simulation; used once."""

    def first(self) -> Iterable[Arrival]:
        """Return the requests whose times are known from the start."""
        ...

    def after(self, finish_s: float) -> Arrival | None:
        """Return the request that follows an answered one, if any."""
        ...


class Workload(Protocol):
    """A load that can be offered again and again."""

    def source(self) -> Source: ...


@dataclass(frozen=True)
class OpenLoop:
    """Requests that arrive at their own times."""

    arrivals: tuple[Arrival, ...]

    def source(self) -> Source:
        """Return the requests, in order of arrival."""
        return _FixedTimes(self.arrivals)


@dataclass(frozen=True)
class ClosedLoop:
    """Clients that send one request after the other.

    Attributes:
        content: Lengths and shared beginnings.
        num_clients: Requests in flight, once all have started.
        num_requests: In total.
        think_s: Between an answer and the next request.
        ramp_s: The clients' first requests are spread evenly over this time.
        seed: Of the lengths.
    """

    content: Content
    num_clients: int
    num_requests: int
    think_s: float = 0.0
    ramp_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_clients < 1 or self.num_requests < 1 or min(self.think_s, self.ramp_s) < 0.0:
            raise ConfigError(
                f"{self.num_clients} clients send {self.num_requests} requests",
                fix="give at least one client and one request, and times of at least 0",
            )

    def source(self) -> Source:
        """Return a fresh set of clients."""
        rng = np.random.default_rng(self.seed)
        num_first = min(self.num_clients, self.num_requests)
        times_s = np.zeros(self.num_requests)
        times_s[:num_first] = np.arange(num_first) * (self.ramp_s / self.num_clients)
        return _Clients(self.content.at(times_s, rng), num_first, self.think_s)


class _FixedTimes:
    def __init__(self, arrivals: tuple[Arrival, ...]) -> None:
        self._arrivals = sorted(arrivals, key=lambda arrival: arrival.time_s)

    def first(self) -> Iterable[Arrival]:
        return self._arrivals

    def after(self, finish_s: float) -> Arrival | None:
        return None


class _Clients:
    def __init__(self, requests: tuple[Arrival, ...], num_first: int, think_s: float) -> None:
        self._first = requests[:num_first]
        self._later = deque(requests[num_first:])
        self._think_s = think_s

    def first(self) -> Iterable[Arrival]:
        return self._first

    def after(self, finish_s: float) -> Arrival | None:
        if not self._later:
            return None
        return replace(self._later.popleft(), time_s=finish_s + self._think_s)
