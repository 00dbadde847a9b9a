"""Networks as graphs: shortest paths and cuts, exact and for small sizes only."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations


@dataclass(frozen=True)
class Network:
    """Devices and switches.

    Attributes:
        hosts: Names of the devices.
        edges: Links as (one end, other end, capacity per direction).
    """

    hosts: tuple[str, ...]
    edges: tuple[tuple[str, str, float], ...]

    @cached_property
    def neighbours(self) -> Mapping[str, dict[str, float]]:
        """Capacity to every neighbour, by name."""
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for one, other, capacity in self.edges:
            found[one][other] = found[one].get(other, 0.0) + capacity
            found[other][one] = found[other].get(one, 0.0) + capacity
        return found

    def hops(self, source: str) -> dict[str, int]:
        """Return the number of links from ``source`` to everything, by breadth-first search."""
        distance = {source: 0}
        queue = deque([source])
        while queue:
            place = queue.popleft()
            for other in self.neighbours[place]:
                if other not in distance:
                    distance[other] = distance[place] + 1
                    queue.append(other)
        return distance

    @property
    def diameter(self) -> int:
        """Links on the longest shortest path between two devices."""
        return max(self.hops(one)[other] for one, other in combinations(self.hosts, 2))

    @property
    def mean_hops(self) -> float:
        """Links between two devices drawn at random, a device and itself included."""
        total = sum(self.hops(one)[other] for one in self.hosts for other in self.hosts)
        return total / len(self.hosts) ** 2

    def cut(self, half: Iterable[str]) -> float:
        """Return the least capacity that parts these devices from the others (max flow)."""
        sources = frozenset(half)
        flow, rest = 0.0, {a: dict(b) for a, b in self.neighbours.items()}
        targets = frozenset(self.hosts) - sources
        while (path := _augmenting_path(rest, sources, targets)) is not None:
            width = min(rest[one][other] for one, other in path)
            for one, other in path:
                rest[one][other] -= width
                rest[other][one] = rest[other].get(one, 0.0) + width
            flow += width
        return flow

    def bisection(self) -> float:
        """Return the least cut over all equal halves of the devices; exponential."""
        first, *others = self.hosts
        size = len(self.hosts) // 2
        return min(self.cut((first, *rest)) for rest in combinations(others, size - 1))


def _augmenting_path(
    rest: Mapping[str, dict[str, float]], sources: frozenset[str], targets: frozenset[str]
) -> list[tuple[str, str]] | None:
    came: dict[str, str | None] = dict.fromkeys(sources)
    queue = deque(sources)
    while queue:
        place = queue.popleft()
        if place in targets:
            path = []
            while (before := came[place]) is not None:
                path.append((before, place))
                place = before
            return path
        for other, capacity in rest[place].items():
            if capacity > 0.0 and other not in came:
                came[other] = place
                queue.append(other)
    return None
