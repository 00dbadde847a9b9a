"""Random numbers without a state: Philox 4x32-10 (Salmon et al., SC 2011).

A draw depends on (seed, sequence, position) and on nothing else, so it is the same whatever runs
beside it, in which row, on which device, and after any number of preemptions. The numbers are
made on the host, one per row and step, in integer arithmetic, hence bit-identical everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

UInt64Array = NDArray[np.uint64]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MASK_64 = (1 << 64) - 1
_NUM_ROUNDS = 10


def philox(
    counter: tuple[UInt64Array, UInt64Array, UInt64Array, UInt64Array],
    key: tuple[UInt64Array, UInt64Array],
) -> tuple[UInt64Array, UInt64Array, UInt64Array, UInt64Array]:
    """Encrypt 128-bit counters: four 32-bit words in, four out, each held in a uint64 array."""
    word0, word1, word2, word3 = counter
    key0, key1 = key
    for _ in range(_NUM_ROUNDS):
        product0 = _MULTIPLIERS[0] * word0
        product1 = _MULTIPLIERS[1] * word2
        word0, word1, word2, word3 = (
            (product1 >> _SHIFT) ^ word1 ^ key0,
            product1 & _LOW,
            (product0 >> _SHIFT) ^ word3 ^ key1,
            product0 & _LOW,
        )
        key0 = (key0 + _KEY_STEPS[0]) & _LOW
        key1 = (key1 + _KEY_STEPS[1]) & _LOW
    return word0, word1, word2, word3


def uniform(
    seed_R: UInt64Array, sequence_R: UInt64Array, position_R: UInt64Array
) -> NDArray[np.float64]:
    """Return one number in [0, 1) with 53 random bits per row, shape [R]."""
    counter = (position_R & _LOW, position_R >> _SHIFT, sequence_R & _LOW, sequence_R >> _SHIFT)
    word0, word1, _, _ = philox(counter, (seed_R & _LOW, seed_R >> _SHIFT))
    bits = ((word0 << _SHIFT) | word1) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def derive(uniform_R: NDArray[np.float64], stream: int) -> NDArray[np.float64]:
    """Return further numbers of the rows, one per row and ``stream`` (counted from 1).

    They are as random as the row's own and, for all that can be told, independent of it: the
    counter is the row's number itself.
    """
    bits_R = (uniform_R * 2.0**53).astype(np.uint64)
    return uniform(np.full_like(bits_R, stream), np.zeros_like(bits_R), bits_R)


def as_uint64(values: Sequence[int]) -> UInt64Array:
    """Turn integers of any size or sign into an array of their lowest 64 bits."""
    return np.array([value & _MASK_64 for value in values], dtype=np.uint64)
