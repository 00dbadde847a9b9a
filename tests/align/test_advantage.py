from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.align.advantage import advantages

GROUP_KINDS = ["group_std", "group_mean", "leave_one_out"]
rewards = st.lists(st.floats(-10, 10, allow_nan=False, width=32), min_size=2, max_size=16)


def test_group_std_is_the_standardised_reward():
    # mean 1/4, sample deviation 1/2: (1 - 1/4) / (1/2) and (0 - 1/4) / (1/2).
    (values,) = advantages([[1.0, 0.0, 0.0, 0.0]], "group_std")
    np.testing.assert_allclose(values, [1.5, -0.5, -0.5, -0.5], rtol=1e-5)


def test_group_mean_does_not_divide_by_the_deviation():
    (values,) = advantages([[1.0, 0.0, 0.0, 0.0]], "group_mean")
    np.testing.assert_allclose(values, [0.75, -0.25, -0.25, -0.25])


def test_leave_one_out_subtracts_the_mean_of_the_others():
    (values,) = advantages([[3.0, 1.0, 2.0]], "leave_one_out")
    np.testing.assert_allclose(values, [3 - 1.5, 1 - 2.5, 2 - 2.0])


def test_batch_whitens_over_all_groups():
    first, second = advantages([[1.0, 1.0], [0.0, 0.0]], "batch")
    everything = np.concatenate([first, second])
    np.testing.assert_allclose(everything.mean(), 0, atol=1e-12)
    np.testing.assert_allclose(everything.std(ddof=1), 1, rtol=1e-5)
    assert (first > 0).all()  # an all-equal group still has a signal here


@pytest.mark.parametrize("kind", GROUP_KINDS)
@given(values=rewards)
def test_advantages_of_a_group_sum_to_zero(kind, values):
    (result,) = advantages([values], kind)
    assert abs(result.sum()) < 1e-6 * max(1.0, np.abs(result).max()) * len(values)


@pytest.mark.parametrize("kind", [*GROUP_KINDS, "batch"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1 / 3])
def test_equal_rewards_give_exactly_zero(kind, value):
    for result in advantages([[value] * 7, [value] * 3], kind):
        assert (result == 0.0).all()


@pytest.mark.parametrize("kind", GROUP_KINDS)
@given(values=rewards, other=rewards)
def test_groups_do_not_see_each_other(kind, values, other):
    alone = advantages([values], kind)[0]
    together = advantages([other, values], kind)[1]
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("kind", [*GROUP_KINDS, "batch"])
def test_empty_groups_stay_empty(kind):
    assert [len(values) for values in advantages([[], [1.0, 0.0]], kind)] == [0, 2]
    assert advantages([], kind) == []
