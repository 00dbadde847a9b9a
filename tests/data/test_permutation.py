from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.data.permutation import Permutation, derive_seed, hash_fraction

SEEDS = st.integers(0, 2**64 - 1)


@given(size=st.integers(1, 3000), seed=SEEDS)
def test_permutation_is_a_bijection_of_its_range(size: int, seed: int) -> None:
    image = Permutation(size, seed).apply(np.arange(size))
    assert np.array_equal(np.sort(image), np.arange(size))


@given(size=st.integers(1, 2**40), seed=SEEDS, data=st.data())
def test_one_element_equals_the_same_element_of_many(
    size: int, seed: int, data: st.DataObject
) -> None:
    indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
    permutation = Permutation(size, seed)
    image = permutation.apply(np.array(indices))
    assert image.tolist() == [permutation(index) for index in indices]
    first_values = [value for value, _ in zip(permutation, range(5), strict=False)]
    assert first_values == [permutation(index) for index in range(min(5, size))]
    assert all(0 <= value < size for value in image.tolist())


def test_different_seeds_give_different_orders() -> None:
    orders = {tuple(Permutation(50, seed).apply(np.arange(50)).tolist()) for seed in range(200)}
    assert len(orders) == 200


@pytest.mark.parametrize("size", [10, 37, 64])
def test_every_element_reaches_every_place_about_equally_often(size: int) -> None:
    trials = 60 * size
    firsts = np.array([Permutation(size, seed)(3) for seed in range(trials)])
    counts = np.bincount(firsts, minlength=size)
    # Chi-squared with size - 1 degrees of freedom; five standard deviations above its mean.
    statistic = ((counts - 60) ** 2 / 60).sum()
    assert statistic < (size - 1) + 5 * np.sqrt(2 * (size - 1))


def test_neighbours_do_not_stay_neighbours() -> None:
    image = Permutation(10_000, 1).apply(np.arange(10_000))
    assert (np.abs(np.diff(image)) == 1).mean() < 0.002
    assert abs(np.corrcoef(np.arange(10_000), image)[0, 1]) < 0.05


def test_seed_parts_of_different_kind_or_order_differ() -> None:
    seeds = [derive_seed(1, 2), derive_seed(2, 1), derive_seed("1", 2), derive_seed(12)]
    assert len(set(seeds)) == 4


def test_hash_fraction_is_uniform_and_pinned() -> None:
    fractions = np.array([hash_fraction(f"doc-{i}") for i in range(4000)])
    assert abs(fractions.mean() - 0.5) < 0.03
    assert abs((fractions < 0.1).mean() - 0.1) < 0.02
    # sha256("abc") begins ba7816bf8f01cfea.
    assert hash_fraction("abc") == 0xBA7816BF8F01CFEA / 2**64
