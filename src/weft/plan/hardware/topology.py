"""Networks in closed form: devices, longest and mean path, bandwidth across the middle.

A path counts the links it crosses, host links included. ``bisection_links`` is the number of
links that must be cut to part the devices into equal halves, so ``bisection_bandwidth`` is that
number times one link's rate. Every form is proven on the network's graph (``graph.py``).
Sources: Leiserson 1985 and Al-Fares et al. 2008 (fat tree), Kim et al. 2008 (dragonfly), Dally
and Towles 2004 (torus).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from weft.core.errors import ConfigError
from weft.plan.hardware.graph import Network
from weft.plan.hardware.links import Link


class Topology(Protocol):
    """What every network answers."""

    @property
    def num_devices(self) -> int: ...

    @property
    def diameter(self) -> int:
        """Links on the longest shortest path between two devices."""
        ...

    @property
    def bisection_links(self) -> float:
        """Links between two equal halves of the devices, in the worst case."""
        ...

    def network(self) -> Network:
        """Return the same network as a graph."""
        ...


def bisection_bandwidth(topology: Topology, link: Link) -> float:
    """Return bytes per second one way between two halves of the devices."""
    return topology.bisection_links * link.bandwidth


def hop_latency_s(topology: Topology, link: Link) -> float:
    """Return the latency of the longest path: a start and a hop per further link."""
    return link.start_s + (topology.diameter - 1) * link.hop_s


@dataclass(frozen=True)
class Switch:
    """Devices on one non-blocking switch, such as NVSwitch inside a node or rack."""

    num_devices: int

    def __post_init__(self) -> None:
        _at_least("num_devices", self.num_devices, 2)

    @property
    def diameter(self) -> int:
        return 2

    @property
    def bisection_links(self) -> float:
        return self.num_devices // 2

    def network(self) -> Network:
        """Return devices around one switch."""
        hosts = tuple(f"d{i}" for i in range(self.num_devices))
        return Network(hosts, tuple((host, "switch", 1.0) for host in hosts))


@dataclass(frozen=True)
class LeafSpine:
    """Two levels of switches; every leaf has a link to every spine.

    Attributes:
        num_leaves: Leaf switches.
        num_spines: Spine switches; fewer than ``devices_per_leaf`` is oversubscribed.
        devices_per_leaf: Devices on a leaf.
    """

    num_leaves: int
    num_spines: int
    devices_per_leaf: int

    def __post_init__(self) -> None:
        _at_least("num_leaves", self.num_leaves, 2)
        _at_least("num_spines", self.num_spines, 1)
        _at_least("devices_per_leaf", self.devices_per_leaf, 1)

    @property
    def num_devices(self) -> int:
        return self.num_leaves * self.devices_per_leaf

    @property
    def oversubscription(self) -> float:
        """Bandwidth into a leaf over bandwidth out of it."""
        return self.devices_per_leaf / self.num_spines

    @property
    def diameter(self) -> int:
        return 4

    @property
    def bisection_links(self) -> float:
        half = self.num_leaves // 2
        return min(self.devices_per_leaf, self.num_spines) * half

    def network(self) -> Network:
        """Return leaves and spines."""
        edges = [
            (f"d{leaf}.{i}", f"leaf{leaf}", 1.0)
            for leaf in range(self.num_leaves)
            for i in range(self.devices_per_leaf)
        ]
        hosts = tuple(edge[0] for edge in edges)
        edges += [
            (f"leaf{leaf}", f"spine{spine}", 1.0)
            for leaf in range(self.num_leaves)
            for spine in range(self.num_spines)
        ]
        return Network(hosts, tuple(edges))


@dataclass(frozen=True)
class FatTree:
    """Three levels of switches with ``ports`` each: full bandwidth between any halves.

    Attributes:
        ports: Ports of every switch; even.
    """

    ports: int

    def __post_init__(self) -> None:
        if self.ports < 4 or self.ports % 2:
            raise ConfigError(f"a fat tree of {self.ports}-port switches", fix="use an even number")

    @property
    def num_devices(self) -> int:
        return self.ports**3 // 4

    @property
    def num_switches(self) -> int:
        """Edge, aggregation and core switches."""
        return 5 * self.ports**2 // 4

    @property
    def diameter(self) -> int:
        return 6

    @property
    def bisection_links(self) -> float:
        return self.num_devices // 2

    def network(self) -> Network:
        """Return hosts, edge, aggregation and core switches."""
        half = self.ports // 2
        edges, hosts = [], []
        for pod in range(self.ports):
            for low in range(half):
                for port in range(half):
                    hosts.append(f"d{pod}.{low}.{port}")
                    edges.append((hosts[-1], f"edge{pod}.{low}", 1.0))
                for high in range(half):
                    edges.append((f"edge{pod}.{low}", f"agg{pod}.{high}", 1.0))
            for high in range(half):
                for port in range(half):
                    edges.append((f"agg{pod}.{high}", f"core{high}.{port}", 1.0))
        return Network(tuple(hosts), tuple(edges))


@dataclass(frozen=True)
class Torus:
    """Rings in every dimension; devices are the switches.

    Attributes:
        sizes: Length of the ring in each dimension.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 2:
            raise ConfigError(f"a torus of {self.sizes}", fix="give every dimension at least 2")

    @property
    def num_devices(self) -> int:
        return math.prod(self.sizes)

    @property
    def diameter(self) -> int:
        return sum(size // 2 for size in self.sizes)

    @property
    def mean_hops(self) -> float:
        """Links to a device drawn at random, itself included: n/4 per even ring."""
        return sum(
            size / 4 if size % 2 == 0 else (size * size - 1) / (4 * size) for size in self.sizes
        )

    @property
    def bisection_links(self) -> float:
        """Two cuts through every ring of the longest dimension; one where a ring is a pair."""
        longest = max(self.sizes)
        return self.num_devices // longest * (2 if longest > 2 else 1)

    def network(self) -> Network:
        """Return the torus."""
        places = _places(self.sizes)
        edges = set()
        for place in places:
            for axis, size in enumerate(self.sizes):
                other = (*place[:axis], (place[axis] + 1) % size, *place[axis + 1 :])
                edges.add(tuple(sorted((str(place), str(other)))))
        return Network(
            tuple(str(place) for place in places),
            tuple((first, second, 1.0) for first, second in sorted(edges)),
        )


@dataclass(frozen=True)
class Dragonfly:
    """Groups of fully connected routers, one link between any two groups.

    Attributes:
        devices_per_router: Devices on a router (p).
        routers_per_group: Routers in a group (a).
        global_links: Links of a router to other groups (h).
    """

    devices_per_router: int
    routers_per_group: int
    global_links: int

    def __post_init__(self) -> None:
        for name in ("devices_per_router", "routers_per_group", "global_links"):
            _at_least(name, getattr(self, name), 1)

    @property
    def num_groups(self) -> int:
        return self.routers_per_group * self.global_links + 1

    @property
    def num_devices(self) -> int:
        return self.devices_per_router * self.routers_per_group * self.num_groups

    @property
    def diameter(self) -> int:
        """Host, local, global, local, host; no local links where a group is one router."""
        return 5 if self.routers_per_group > 1 else 3

    @property
    def bisection_links(self) -> float:
        """Global links between two halves of the groups."""
        half = self.num_groups // 2
        return half * (self.num_groups - half)

    def network(self) -> Network:
        """Return hosts and routers; group i reaches group j by its port (j - i - 1)."""
        routers, ports = self.routers_per_group, self.global_links
        hosts, edges = [], []
        for group in range(self.num_groups):
            for router in range(routers):
                name = f"r{group}.{router}"
                for port in range(self.devices_per_router):
                    hosts.append(f"d{group}.{router}.{port}")
                    edges.append((hosts[-1], name, 1.0))
                edges += [(name, f"r{group}.{other}", 1.0) for other in range(router)]
            for other in range(group):
                down = (other - group - 1) % self.num_groups
                up = (group - other - 1) % self.num_groups
                edges.append((f"r{group}.{down // ports}", f"r{other}.{up // ports}", 1.0))
        return Network(tuple(hosts), tuple(edges))


@dataclass(frozen=True)
class Rail:
    """Nodes whose device i hangs on rail switch i; spines join the rails.

    Attributes:
        num_nodes: Nodes.
        devices_per_node: Devices and rails.
        num_spines: Switches above the rails; 0 leaves cross-rail traffic to the node's own link.
    """

    num_nodes: int
    devices_per_node: int
    num_spines: int = 0

    def __post_init__(self) -> None:
        _at_least("num_nodes", self.num_nodes, 2)
        _at_least("devices_per_node", self.devices_per_node, 1)

    @property
    def num_devices(self) -> int:
        return self.num_nodes * self.devices_per_node

    def hops(self, source: int, target: int) -> int:
        """Return links between two devices, counted node by node; two inside a node."""
        if source == target:
            return 0
        per_node = self.devices_per_node
        if source // per_node == target // per_node:
            return 2
        if source % per_node == target % per_node:
            return 2
        return 4

    @property
    def diameter(self) -> int:
        return 2 if self.devices_per_node == 1 else 4

    @property
    def bisection_links(self) -> float:
        """Half of the nodes against the other half: a link per device of the smaller one."""
        return self.num_nodes // 2 * self.devices_per_node

    def network(self) -> Network:
        """Return devices, node switches, rails and spines."""
        hosts, edges = [], []
        for node in range(self.num_nodes):
            for place in range(self.devices_per_node):
                hosts.append(f"d{node}.{place}")
                edges.append((hosts[-1], f"node{node}", 1.0))
                edges.append((hosts[-1], f"rail{place}", 1.0))
        edges += [
            (f"rail{place}", f"spine{spine}", 1.0)
            for place in range(self.devices_per_node)
            for spine in range(self.num_spines)
        ]
        return Network(tuple(hosts), tuple(edges))


def _places(sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
    places: list[tuple[int, ...]] = [()]
    for size in sizes:
        places = [(*place, index) for place in places for index in range(size)]
    return places


def _at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise ConfigError(f"{name} is {value}", fix=f"{name} must be at least {low}")
