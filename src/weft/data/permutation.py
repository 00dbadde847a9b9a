"""Counter-based randomness: order as a function of (seed, index), with nothing to remember.

A shuffled epoch is a bijection of 0..size-1 computed one element at a time, so that a loader can
start anywhere and two machines agree without exchanging a list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

_NUM_ROUNDS = 6
_CHUNK = 1024


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
        self._bits = np.uint64(half_bits)
        self._mask = np.uint64(2**half_bits - 1)
        self._keys = np.array(
            [derive_seed(seed, "round", index) for index in range(_NUM_ROUNDS)], dtype=np.uint64
        )

    def __call__(self, index: int) -> int:
        """Return where ``index`` goes."""
        return int(self.apply(np.array([index]))[0])

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
        left, right = values >> self._bits, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (mix64(right ^ key) & self._mask)
        return (left << self._bits) | right
