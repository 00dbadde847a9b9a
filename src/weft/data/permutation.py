"""Counter-based randomness: order as a function of (seed, index), with nothing to remember.

A shuffled epoch is a bijection of 0..size-1 computed one element at a time, so that a loader can
start anywhere and two machines agree without exchanging a list.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator

import numpy as np

_NUM_ROUNDS = 6
_CHUNK = 1024
_MASK64 = 2**64 - 1


def derive_seed(*parts: int | str) -> int:
    """Hash integers and labels to one 64-bit seed; every part changes every bit.

    >>> derive_seed(1, "epoch", 0) == derive_seed(1, "epoch", 0) != derive_seed(1, "epoch", 1)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hash_fraction(text: str) -> float:
    """Map a text to [0, 1), the same on every machine and in every version."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def mix64(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit integers (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    values = values.astype(np.uint64, copy=True)
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


class Permutation:
    """A pseudo-random bijection of ``range(size)`` in constant memory.

    A Feistel network permutes the next power of four; results outside the range are fed back
    until they fall inside ("cycle walking": Black and Rogaway, CT-RSA 2002, section 3).
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        half_bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
        self._bits, self._mask = half_bits, 2**half_bits - 1
        self._keys = [derive_seed(seed, "round", index) for index in range(_NUM_ROUNDS)]

    def __call__(self, index: int) -> int:
        """Return where ``index`` goes."""
        value = self._feistel_one(index)
        while value >= self.size:
            value = self._feistel_one(value)
        return value

    def __iter__(self) -> Iterator[int]:
        """Yield where 0, 1, 2 ... go."""
        for first in range(0, self.size, _CHUNK):
            yield from self.apply(np.arange(first, min(first + _CHUNK, self.size))).tolist()

    def apply(self, indices: np.ndarray) -> np.ndarray:
        """Permute many indices at once (int64 in, int64 out)."""
        values = self._feistel(indices.astype(np.uint64))
        outside = values >= self.size
        while outside.any():
            values[outside] = self._feistel(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _feistel(self, values: np.ndarray) -> np.ndarray:
        bits, mask = np.uint64(self._bits), np.uint64(self._mask)
        left, right = values >> bits, values & mask
        for key in self._keys:
            left, right = right, left ^ (mix64(right ^ np.uint64(key)) & mask)
        return (left << bits) | right

    def _feistel_one(self, value: int) -> int:
        """Do the same with plain integers: for one value, arrays cost ten times as much."""
        left, right = value >> self._bits, value & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix64_one(right ^ key) & self._mask)
        return (left << self._bits) | right


@functools.lru_cache(maxsize=64)
def shuffled(size: int, seed: int) -> Permutation:
    """Return ``Permutation(size, seed)``, remembering the last few: one serves a whole epoch."""
    return Permutation(size, seed)


def _mix64_one(value: int) -> int:
    value ^= value >> 30
    value = value * 0xBF58476D1CE4E5B9 & _MASK64
    value ^= value >> 27
    value = value * 0x94D049BB133111EB & _MASK64
    return value ^ value >> 31
