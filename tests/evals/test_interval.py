from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.evals.interval import bootstrap, wilson


def test_wilson_equals_published_values():
    # Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29.
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):  # fmt: skip
        found = wilson(successes, n)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(n=st.integers(1, 500), data=st.data())
def test_wilson_holds_the_share_and_stays_in_range(n, data):
    successes = data.draw(st.integers(0, n))
    found = wilson(successes, n)
    assert 0.0 <= found.low <= successes / n <= found.high <= 1.0
    assert found.low < found.high


def test_wilson_is_symmetric_and_shrinks_with_n():
    a, b = wilson(3, 10), wilson(7, 10)
    assert (a.low, a.high) == pytest.approx((1 - b.high, 1 - b.low))
    assert wilson(300, 1000).high - wilson(300, 1000).low < a.high - a.low


def test_no_trials_say_nothing():
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ConfigError):
        wilson(successes, n)


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    found = bootstrap(values.tolist(), num_resamples=2000)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_bootstrap_is_a_function_of_its_seed():
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap([2.0] * 5) == bootstrap([2.0] * 5, seed=3)


def test_bootstrap_of_nothing_is_refused():
    with pytest.raises(ConfigError):
        bootstrap([])
