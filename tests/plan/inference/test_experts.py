from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.plan.inference.experts import (
    PhaseTimes,
    attention_expert_ratio,
    imbalance,
    max_over_mean,
    placed_imbalance,
    popularity,
    split_devices,
)

SECONDS = st.floats(1e-6, 1e-3)


def test_imbalance_is_zero_when_even_and_e_minus_one_when_one_takes_all():
    assert imbalance([7] * 64) == 0.0
    assert imbalance([0] * 63 + [640]) == pytest.approx(63.0)


def test_imbalance_is_the_squared_coefficient_of_variation():
    loads = np.random.default_rng(0).gamma(2.0, size=10_000)
    assert imbalance(loads) == pytest.approx(0.5, rel=0.05)
    assert imbalance(loads) == pytest.approx(imbalance(1000 * loads))


def test_no_load_has_no_balance():
    with pytest.raises(ConfigError, match="no load"):
        imbalance([0, 0])


def test_popularity_is_even_without_skew_and_sums_to_one():
    assert popularity(8, 0.0).tolist() == [0.125] * 8
    assert popularity(64, 1.2).sum() == pytest.approx(1.0)
    assert max_over_mean(popularity(64, 1.2)) > 10


def test_replicas_even_out_a_skewed_load():
    loads = np.stack([popularity(256, 0.8, seed) for seed in range(4)])
    before, after = placed_imbalance(loads, num_places=288, num_devices=32)
    assert before > 2.0
    assert after < 1.3


def test_experts_must_lie_evenly():
    with pytest.raises(ConfigError, match="do not lie evenly"):
        placed_imbalance([[1.0] * 6], num_places=8, num_devices=4)


@given(
    attention_s=SECONDS, expert_s=SECONDS, fixed_s=SECONDS, send_s=SECONDS, num=st.integers(2, 40)
)
def test_the_ratio_in_closed_form_is_the_best_of_all_splits(
    attention_s, expert_s, fixed_s, send_s, num
):
    """W07: against brute force."""
    times = PhaseTimes(attention_s, expert_s, fixed_s, send_s)
    best = max(split_devices(times, a, num - a).per_device for a in range(1, num))
    assert attention_expert_ratio(times, num).per_device == pytest.approx(best)


def test_equal_sides_and_a_link_as_slow_need_three_or_more_micro_batches():
    split = split_devices(PhaseTimes(1e-4, 1e-4), 4, 4)
    assert (split.layer_s, split.num_in_flight) == (pytest.approx(1e-4), 2)
    linked = split_devices(PhaseTimes(1e-4, 1e-4, send_s=0.5e-4), 4, 4)
    assert linked.num_in_flight == 3


def test_one_device_cannot_be_split():
    with pytest.raises(ConfigError, match="cannot be split"):
        attention_expert_ratio(PhaseTimes(1.0, 1.0), 1)
