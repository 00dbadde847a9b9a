from __future__ import annotations

import numpy as np
import pytest

from weft.core.errors import ConfigError
from weft.plan.workload.lengths import (
    EmpiricalLength,
    FixedLength,
    LogNormalLength,
    UniformLength,
    ZipfLength,
    zipf_weights,
)

ALL = [
    (FixedLength(7), 7, 7),
    (UniformLength(3, 9), 3, 9),
    (LogNormalLength(100.0, 1.5, 900), 1, 900),
    (ZipfLength(5, 50), 5, 50),
    (EmpiricalLength((2, 4, 8)), 2, 8),
]


@pytest.mark.parametrize(("lengths", "low", "high"), ALL)
def test_lengths_stay_in_range_and_reach_both_ends(lengths, low, high):
    drawn = lengths.sample(np.random.default_rng(0), 20_000)
    assert drawn.max() == high
    assert low <= drawn.min() <= low + 1


@pytest.mark.parametrize("lengths", [lengths for lengths, _, _ in ALL])
def test_the_seed_decides(lengths):
    first, second = (lengths.sample(np.random.default_rng(3), 50).tolist() for _ in range(2))
    assert first == second


def test_median_of_the_log_normal_is_the_one_asked_for():
    drawn = LogNormalLength(200.0, 1.0, 10**6).sample(np.random.default_rng(1), 20_001)
    assert np.median(drawn) == pytest.approx(200.0, rel=0.05)


def test_zipf_weights_fall_by_the_power_of_the_rank():
    weights = zipf_weights(8, 2.0)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] / weights[3] == pytest.approx(16.0)
    assert zipf_weights(4, 0.0).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedLength(0),
        lambda: UniformLength(4, 3),
        lambda: UniformLength(0, 3),
        lambda: LogNormalLength(0.5, 1.0, 9),
        lambda: ZipfLength(9, 3),
        lambda: EmpiricalLength(()),
    ],
)
def test_impossible_lengths_are_refused_with_a_fix(make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.fix
