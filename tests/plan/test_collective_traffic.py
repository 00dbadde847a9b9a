from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.plan.collective_traffic import run_all_reduce, run_hierarchical_all_reduce
from weft.plan.collectives import algorithm_seconds
from weft.plan.hardware.links import Link

ONE_BYTE_A_SECOND = Link("test", bandwidth=1.0)


def buffers(num_ranks: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-9, 9, (num_ranks, size)).astype(np.float64)


@pytest.mark.parametrize("algorithm", ["ring", "tree", "double_tree"])
@given(num_ranks=st.integers(2, 20))
@settings(max_examples=19, deadline=None)
def test_busiest_rank_sends_what_the_formula_says(algorithm, num_ranks):
    before = buffers(num_ranks, 2 * num_ranks)
    traffic = run_all_reduce(algorithm, before)
    assert np.array_equal(traffic.buffers, np.tile(before.sum(0), (num_ranks, 1)))
    seconds = algorithm_seconds(
        "all_reduce", algorithm, num_ranks, before[0].nbytes, ONE_BYTE_A_SECOND
    )
    assert seconds == pytest.approx(traffic.busiest_bytes)


@pytest.mark.parametrize("num_ranks", [2, 4, 8, 16])
def test_halving_and_doubling_sends_as_little_as_a_ring_in_fewer_steps(num_ranks):
    before = buffers(num_ranks, num_ranks)
    traffic = run_all_reduce("halving_doubling", before)
    assert np.array_equal(traffic.buffers, np.tile(before.sum(0), (num_ranks, 1)))
    assert traffic.busiest_bytes == 2 * (num_ranks - 1) / num_ranks * before[0].nbytes
    assert traffic.num_steps == 2 * np.log2(num_ranks)


def test_every_link_of_a_ring_carries_the_same():
    before = buffers(8, 32)
    traffic = run_all_reduce("ring", before)
    assert set(traffic.link_bytes.values()) == {2 * 7 / 8 * before[0].nbytes}
    assert traffic.num_steps == 14


def test_hierarchy_sends_a_share_between_nodes():
    before = buffers(12, 24)
    traffic = run_hierarchical_all_reduce(before, ranks_per_node=4)
    assert np.array_equal(traffic.buffers, np.tile(before.sum(0), (12, 1)))
    size = before[0].nbytes
    inner = sum(n for (a, b), n in traffic.link_bytes.items() if a == 0 and b < 4)
    outer = sum(n for (a, b), n in traffic.link_bytes.items() if a == 0 and b >= 4)
    assert inner == 2 * 3 / 4 * size
    assert outer == 2 * 2 / 3 * size / 4


def test_uneven_buffers_and_rank_counts_are_refused():
    with pytest.raises(ConfigError, match="do not split"):
        run_all_reduce("ring", buffers(4, 6))
    with pytest.raises(ConfigError, match="power of two"):
        run_all_reduce("halving_doubling", buffers(6, 6))
    with pytest.raises(ConfigError, match="cannot share"):
        run_hierarchical_all_reduce(buffers(6, 6), ranks_per_node=4)
