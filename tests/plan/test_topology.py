from __future__ import annotations

from itertools import combinations

import pytest

from weft.core.errors import ConfigError
from weft.plan.hardware.links import link
from weft.plan.hardware.topology import (
    Dragonfly,
    FatTree,
    LeafSpine,
    Rail,
    Switch,
    Torus,
    bisection_bandwidth,
    hop_latency_s,
)

SMALL = [
    Switch(8),
    LeafSpine(4, 2, 2),
    LeafSpine(4, 1, 2),
    LeafSpine(2, 3, 4),
    Torus((4, 4)),
    Torus((8,)),
    Torus((2, 2, 2)),
    Torus((4, 2)),
    Rail(4, 2),
    Rail(2, 4, 2),
]


@pytest.mark.parametrize(
    "topology", [*SMALL, FatTree(4), Torus((3, 5)), Dragonfly(1, 3, 1)], ids=str
)
def test_counts_and_longest_path_are_those_of_the_graph(topology):
    network = topology.network()
    assert len(network.hosts) == topology.num_devices
    assert network.diameter == topology.diameter


@pytest.mark.parametrize("topology", SMALL, ids=str)
def test_bisection_is_the_least_cut_of_the_graph(topology):
    network = topology.network()
    if isinstance(topology, Rail):  # the devices of a node stay together
        hosts, size = network.hosts, topology.devices_per_node
        nodes = [hosts[i : i + size] for i in range(0, len(hosts), size)]
        halves = combinations(nodes, len(nodes) // 2)
        least = min(network.cut([host for node in half for host in node]) for half in halves)
    else:
        least = network.bisection()
    assert least == topology.bisection_links


@pytest.mark.parametrize("topology", [Torus((4, 4)), Torus((3, 5)), Torus((2, 6))], ids=str)
def test_mean_hops_of_a_torus(topology):
    assert topology.network().mean_hops == pytest.approx(topology.mean_hops)


def test_fat_tree_of_four_ports():
    tree = FatTree(4)
    switches = {end for edge in tree.network().edges for end in edge[:2]} - set(
        tree.network().hosts
    )
    assert tree.num_devices == 16
    assert len(switches) == tree.num_switches == 20
    pods = [host for host in tree.network().hosts if host.startswith(("d0", "d1"))]
    assert tree.network().cut(pods) == tree.bisection_links == 8


@pytest.mark.parametrize("dragonfly", [Dragonfly(2, 3, 1), Dragonfly(2, 1, 3)], ids=str)
def test_halves_of_a_dragonfly_share_their_global_links(dragonfly):
    network = dragonfly.network()
    half = set(range(dragonfly.num_groups // 2))
    group = {name: int(name[1:].split(".")[0]) for edge in network.edges for name in edge[:2]}
    crossing = sum(
        1 for one, other, _ in network.edges if (group[one] in half) != (group[other] in half)
    )
    assert crossing == dragonfly.bisection_links
    degree = [len(network.neighbours[name]) for name in group if name.startswith("r")]
    expected = (
        dragonfly.devices_per_router + dragonfly.routers_per_group - 1 + dragonfly.global_links
    )
    assert set(degree) == {expected}


def test_rails_need_two_links_on_the_same_rail_and_four_across():
    rail = Rail(3, 4, num_spines=2)
    network = rail.network()
    for one in range(rail.num_devices):
        hops = network.hops(network.hosts[one])
        for other in range(rail.num_devices):
            assert hops[network.hosts[other]] == rail.hops(one, other)


def test_bandwidth_and_latency_of_a_link():
    tree = FatTree(8)
    assert bisection_bandwidth(tree, link("ib-ndr")) == 64 * 50e9
    assert hop_latency_s(tree, link("ib-ndr")) == pytest.approx(12e-6 + 5 * 4e-6)


def test_oversubscription():
    assert LeafSpine(4, 2, 8).oversubscription == 4.0
    assert LeafSpine(4, 2, 8).bisection_links == 4


@pytest.mark.parametrize(
    "make",
    [lambda: FatTree(5), lambda: Torus((4, 1)), lambda: Switch(1), lambda: Dragonfly(0, 1, 1)],
)
def test_impossible_networks_are_refused(make):
    with pytest.raises(ConfigError):
        make()
