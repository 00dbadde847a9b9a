from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.data.mix import Mixture
from weft.data.shards import TokenShards

from .strategies import numbered_shards

weight_lists = st.lists(st.floats(0, 10), min_size=1, max_size=5).filter(lambda w: sum(w) > 1e-3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    return numbered_shards(tmp_path_factory.mktemp("shards"), [10])


@given(weights=weight_lists, seed=st.integers(0, 2**63))
def test_each_source_is_read_in_order_without_gaps(
    shards: TokenShards, weights: list[float], seed: int
) -> None:
    mixture = Mixture([shards] * len(weights), weights)
    counts = [0] * len(weights)
    for index in range(200):
        source, number = mixture.choose(index, seed)
        assert number == counts[source]
        counts[source] += 1
        shares = [(index + 1) * weight for weight in mixture.weights]
        errors = [abs(count - share) for count, share in zip(counts, shares, strict=True)]
        assert max(errors) <= len(weights)


def test_counts_are_exact_in_expectation_over_seeds(shards: TokenShards) -> None:
    weights = [0.5, 0.3, 0.15, 0.05]
    mixture = Mixture([shards] * 4, weights)
    trials = 6000
    for index in (0, 7, 123_456_789):
        drawn = np.bincount([mixture.choose(index, s)[0] for s in range(trials)], minlength=4)
        errors = drawn / trials - np.array(weights)
        # Five standard deviations of a share estimated from independent draws.
        assert (np.abs(errors) < 5 * np.sqrt(np.array(weights) / trials)).all()


def test_source_without_weight_is_never_drawn(shards: TokenShards) -> None:
    mixture = Mixture([shards] * 3, [1.0, 0.0, 2.0])
    assert {mixture.choose(index, 5)[0] for index in range(500)} == {0, 2}


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_weights_that_cannot_work_are_refused(shards: TokenShards, weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="weights"):
        Mixture([shards, shards], weights)


def test_one_source_is_the_identity(tmp_path: Path, shards: TokenShards) -> None:
    mixture = Mixture([shards], [3.0])
    assert [mixture.choose(index, 9) for index in range(5)] == [(0, index) for index in range(5)]
