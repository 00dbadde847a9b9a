from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.sched.eplb import pack_evenly, place_experts, replicate

# The example of the algorithm's own description: 12 experts, 16 places, 4 groups, 2 nodes of 4.
LOADS = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
MAPS = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]
LAYOUT = {"num_places": 16, "num_groups": 4, "num_nodes": 2, "num_devices": 8}


def test_published_example_gives_the_published_maps():
    placement = place_experts(LOADS, **LAYOUT)
    assert placement.physical_to_logical_LP.tolist() == MAPS
    assert placement.num_replicas_LE[0].tolist() == [1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1]
    assert placement.logical_to_physical_LER[0, 5].tolist() == [0, 2]
    assert placement.logical_to_physical_LER[0, 7].tolist() == [3, -1]


def test_groups_stay_inside_a_node():
    placement = place_experts(LOADS, **LAYOUT)
    for row in placement.physical_to_logical_LP:
        nodes = [{int(expert) // 3 for expert in row[:8]}, {int(expert) // 3 for expert in row[8:]}]
        assert nodes[0].isdisjoint(nodes[1])


def test_groups_that_do_not_divide_over_nodes_are_placed_globally():
    layout = {"num_places": 16, "num_nodes": 2, "num_devices": 8}
    odd = place_experts(LOADS, num_groups=3, **layout)
    free = place_experts(LOADS, num_places=16, num_devices=8)
    assert odd.physical_to_logical_LP.tolist() == free.physical_to_logical_LP.tolist()


def test_spare_places_go_to_the_busiest():
    items, counts = replicate([10.0, 90.0, 20.0], 6)
    assert items.tolist() == [0, 1, 2, 1, 1, 1]
    assert counts.tolist() == [1, 4, 1]


def test_the_spread_of_the_example_shrinks():
    loads = np.array(LOADS, float)
    placed = place_experts(LOADS, **LAYOUT).device_loads(loads)
    plain = place_experts(LOADS, num_places=12, num_devices=4).device_loads(loads)
    naive = loads.reshape(2, 4, 3).sum(axis=2)
    assert placed.sum(axis=1) == pytest.approx(loads.sum(axis=1))
    assert (plain.max(axis=1) < naive.max(axis=1)).all()
    assert (placed.max(axis=1) / placed.mean(axis=1) < 1.25).all()


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=8),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_packs_are_full_and_differ_by_at_most_the_largest_item(head, num_packs, rng):
    loads = [rng.choice(head) for _ in range(num_packs * rng.randint(1, 5))]
    packs, ranks = pack_evenly(loads, num_packs)
    size = len(loads) // num_packs
    assert sorted(zip(packs.tolist(), ranks.tolist(), strict=True)) == [
        (pack, rank) for pack in range(num_packs) for rank in range(size)
    ]
    totals = np.bincount(packs, weights=loads, minlength=num_packs)
    assert totals.max() - totals.min() <= max(loads)


@given(
    st.lists(st.integers(0, 10_000), min_size=2, max_size=24),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_every_expert_has_a_place_and_balance_is_bounded(loads, num_devices, num_spare_rows):
    num_places = -(-len(loads) // num_devices) * num_devices + num_spare_rows * num_devices
    placement = place_experts([loads], num_places=num_places, num_devices=num_devices)
    assert sorted(set(placement.physical_to_logical_LP[0].tolist())) == list(range(len(loads)))
    totals = placement.device_loads([loads])[0]
    largest_share = (np.array(loads) / placement.num_replicas_LE[0]).max()
    assert totals.max() <= totals.mean() + largest_share + 1e-2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_places": 11}, "cannot hold"),
        ({"num_places": 15}, "over 8 devices"),
        ({"num_groups": 5}, "into 5 groups"),
        ({"num_nodes": 3}, "over 3 nodes"),
    ],
)
def test_numbers_that_do_not_divide_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        place_experts(LOADS, **{**LAYOUT, **changes})


def test_loads_have_layers_and_no_negative_numbers():
    for loads in ([1.0, 2.0], [[1.0, -2.0]]):
        with pytest.raises(ConfigError, match="shape"):
            place_experts(loads, num_places=2)
