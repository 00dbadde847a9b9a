from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.plan.collectives import (
    ALGORITHMS,
    algorithm_seconds,
    bus_bandwidth,
    bus_factor,
    choose,
    collective_cost,
    fit_link,
    hierarchical_all_reduce_seconds,
    send_seconds,
)
from weft.plan.hardware.cluster import Cluster, Span
from weft.plan.hardware.links import Link, link

NVLINK = Link("450 GB/s", bandwidth=450e9)
GIB = 2**30


@pytest.mark.parametrize(
    ("kind", "num_ranks", "factor"),
    [
        ("all_reduce", 8, 1.75), ("all_gather", 8, 0.875), ("reduce_scatter", 8, 0.875),
        ("all_to_all", 8, 0.875), ("all_reduce", 64, 1.96875), ("broadcast", 8, 1.0),
        ("reduce", 8, 1.0), ("all_reduce", 1, 0.0),
    ],
)  # fmt: skip
def test_bus_factors_are_those_of_nccl_tests(kind, num_ranks, factor):
    assert bus_factor(kind, num_ranks) == factor


def test_ring_all_reduce_of_one_gib_at_450_gb_per_s():
    assert algorithm_seconds("all_reduce", "ring", 8, GIB, NVLINK) == pytest.approx(
        4.175662648888889e-3, rel=1e-12
    )


def test_ring_latency_is_a_hop_per_step():
    slow = Link("latency", bandwidth=1e30, start_s=5e-6, hop_s=5e-6)
    seconds = slow.start_s + 13 * slow.hop_s
    assert seconds == pytest.approx(70e-6)
    assert algorithm_seconds("all_reduce", "ring", 8, 1e9, slow) <= seconds


def test_two_levels_one_after_the_other():
    seconds = hierarchical_all_reduce_seconds(GIB, Span(8, 4), NVLINK, Link("ib", bandwidth=50e9))
    assert seconds == pytest.approx(8.202194488888889e-3, rel=1e-12)


@given(st.sampled_from(sorted(ALGORITHMS)), st.integers(2, 300), st.floats(1.0, 1e10))
def test_a_larger_message_never_takes_less(kind, num_ranks, size):
    cluster = Cluster.of("H100", num_ranks)
    small = choose(kind, size, cluster, num_ranks).seconds
    assert 0.0 < small <= choose(kind, 2 * size, cluster, num_ranks).seconds


@given(st.sampled_from(sorted(ALGORITHMS)), st.integers(2, 64), st.floats(1e6, 1e10))
def test_a_faster_link_never_takes_longer(kind, num_ranks, size):
    slow = Cluster.of("A100", num_ranks, scale_up=link("nvlink3"), scale_out=link("ib-hdr"))
    fast = Cluster.of("A100", num_ranks, scale_up=link("nvlink4"), scale_out=link("ib-ndr"))
    assert (
        choose(kind, size, fast, num_ranks).seconds <= choose(kind, size, slow, num_ranks).seconds
    )


def test_one_rank_has_nothing_to_send():
    cost = collective_cost("tp", "all_reduce", 1e9, Cluster.of("H100", 8), 1)
    assert cost.seconds == 0.0
    assert cost.network_bytes == 0.0


def test_large_all_reduce_reaches_the_published_bus_bandwidth():
    cluster = Cluster.of("H100", 8)
    seconds = choose("all_reduce", 4e9, cluster, 8).seconds
    assert 340e9 < bus_bandwidth("all_reduce", 8, 4e9, seconds) < 445e9


def test_all_to_all_between_nodes_is_bound_by_the_share_that_leaves():
    cluster = Cluster.of("H100", 32)
    choice = choose("all_to_all", 1e9, cluster, 32)
    assert choice.outer_bytes == pytest.approx(24 / 32 * 1e9)
    assert choice.inner_bytes == pytest.approx(7 / 32 * 1e9)
    assert choice.seconds > choose("all_to_all", 1e9, cluster, 8).seconds


def test_a_message_inside_the_node_is_faster():
    cluster = Cluster.of("A100", 16)
    assert send_seconds(1e8, cluster, stride=1) < send_seconds(1e8, cluster, stride=8)


@given(st.floats(1e-6, 1e-4), st.floats(1e9, 1e12), st.integers(2, 64))
def test_fit_recovers_the_link_it_was_made_from(start_s, rate, num_ranks):
    sizes = [1e6, 1e7, 1e8, 1e9]
    times = [start_s + size * bus_factor("all_reduce", num_ranks) / rate for size in sizes]
    fit = fit_link("all_reduce", num_ranks, sizes, times)
    assert fit.rate == pytest.approx(rate, rel=1e-4)
    assert fit.start_s == pytest.approx(start_s, rel=1e-3, abs=1e-9)
    assert fit.median_error < 1e-4


def test_what_cannot_be_is_refused_with_a_way_out():
    with pytest.raises(ConfigError, match="all_redcue"):
        bus_factor("all_redcue", 8)
    with pytest.raises(ConfigError, match="does no all_to_all"):
        algorithm_seconds("all_to_all", "tree", 8, 1e6, NVLINK)
    with pytest.raises(ConfigError, match="two or more sizes"):
        fit_link("all_reduce", 8, [1e6, 1e6], [1e-3, 1e-3])
    with pytest.raises(ConfigError, match="bandwidth"):
        Link("broken", bandwidth=0.0)
    with pytest.raises(ConfigError, match="no link"):
        link("nvlink9")
