"""Philox against its published answers, and the statistics sampling relies on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from weft.engine.sampling.rng import as_uint64, philox, uniform

# The known-answer tests of Random123 (Salmon et al.), philox4x32-10: counter, key, expected.
KNOWN_ANSWERS = [
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def words(values):
    return tuple(np.array([value], dtype=np.uint64) for value in values)


def draws(seeds, sequences, positions):
    return uniform(as_uint64(seeds), as_uint64(sequences), as_uint64(positions))


def chi_square(values, num_bins):
    counts = np.histogram(values, bins=num_bins, range=(0.0, 1.0))[0]
    expected = len(values) / num_bins
    return float(((counts - expected) ** 2 / expected).sum())


def chi_square_limit(degrees):
    """Wilson and Hilferty's approximation of the 99.99 % point."""
    return degrees * (1 - 2 / (9 * degrees) + 3.72 * math.sqrt(2 / (9 * degrees))) ** 3


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, expected):
    assert tuple(int(word[0]) for word in philox(words(counter), words(key))) == expected


def test_a_draw_does_not_depend_on_its_row_or_neighbours():
    rows = [(seed, sequence, seed * 7 + sequence) for seed in range(20) for sequence in range(5)]
    together = draws(*zip(*rows, strict=True))
    backwards = draws(*zip(*reversed(rows), strict=True))[::-1]
    alone = np.array([draws([a], [b], [c])[0] for a, b, c in rows])
    assert np.array_equal(together, alone)
    assert np.array_equal(together, backwards)


@pytest.mark.parametrize("axis", ["seed", "sequence", "position"])
def test_draws_are_uniform_along_every_part_of_the_counter(axis):
    num = 50_000
    parts = {"seed": [3] * num, "sequence": [5] * num, "position": [7] * num}
    parts[axis] = list(range(num))
    values = draws(parts["seed"], parts["sequence"], parts["position"])
    assert values.min() >= 0.0
    assert values.max() < 1.0
    assert chi_square(values, 100) < chi_square_limit(99)


@pytest.mark.parametrize("step", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_neighbouring_counters_are_independent(step):
    num, bins = 50_000, 10
    positions = np.arange(0, 3 * num, 3)
    first = uniform(*(np.full(num, 11, dtype=np.uint64),) * 2, positions.astype(np.uint64))
    shifted = [np.full(num, 11 + step[0]), np.full(num, 11 + step[1]), positions + step[2]]
    second = uniform(*(part.astype(np.uint64) for part in shifted))
    pairs = np.floor(first * bins) * bins + np.floor(second * bins)
    assert chi_square((pairs + 0.5) / bins**2, bins**2) < chi_square_limit(bins**2 - 1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 4.5 / math.sqrt(num)


def test_seeds_of_any_size_and_sign_are_taken_modulo_two_to_the_64():
    assert as_uint64([-1, 2**64 + 5, 0]).tolist() == [2**64 - 1, 5, 0]
    assert draws([2**63], [0], [0])[0] != draws([0], [0], [0])[0]
