"""Deduplication: exact by hash, near by MinHash with locality-sensitive hashing.

Two texts are compared by the Jaccard index of their sets of word n-grams. A MinHash signature
estimates it: the probability that two sets share the minimum of a random hash is their Jaccard
index (Broder 1997, "On the resemblance and containment of documents"). Documents meet when all
rows of one band of their signatures agree; of b bands of r rows, a pair of index s meets with
probability ``1 - (1 - s**r)**b`` (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets",
section 3.4). Pairs that meet are then compared by their whole signatures.

Letters: P hash functions, W shingles of one text, D documents.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from weft.core.errors import ConfigError
from weft.data.permutation import derive_seed, mix64

# Scripts without spaces between words are taken character by character.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
_CHUNK = 8192
_MAX_GROUP = 64


@dataclass(frozen=True)
class DedupConfig:
    """Which duplicates are dropped; the first of its kind stays.

    Attributes:
        exact: Drop texts equal up to case and white space.
        near: Drop texts similar to an earlier one.
        threshold: Jaccard index of word n-grams from which two texts are duplicates.
        shingle_words: Words in an n-gram.
        num_hashes: Length of a signature; the estimate's standard error is at most half of
            its inverse root (0.044 for 128).
        num_bands: Parts a signature is cut into; more bands find less similar pairs.
    """

    exact: bool = True
    near: bool = True
    threshold: float = 0.8
    shingle_words: int = 5
    num_hashes: int = 128
    num_bands: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(
                f"dedup.threshold is {self.threshold}", fix="use a number above 0 and up to 1"
            )
        if self.num_bands < 1 or self.num_hashes % self.num_bands:
            raise ConfigError(
                f"dedup.num_hashes {self.num_hashes} cannot be cut into {self.num_bands} bands",
                fix="make num_hashes a multiple of num_bands",
            )
        if self.shingle_words < 1:
            raise ConfigError("dedup.shingle_words is below 1", fix="use 5")


def text_key(text: str) -> bytes:
    """Return the hash under which exact duplicates meet: case and white space do not count."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).digest()


class MinHasher:
    """Computes signatures ``[P]`` uint32 of texts."""

    def __init__(self, config: DedupConfig) -> None:
        self._config = config
        counters = np.arange(config.num_hashes, dtype=np.uint64)
        # Multiply-shift hashing wants odd multipliers (Dietzfelbinger et al. 1997).
        self._multipliers_P = mix64(counters + np.uint64(derive_seed("a") >> 1)) | np.uint64(1)
        self._offsets_P = mix64(counters + np.uint64(derive_seed("b") >> 1))
        self._word_hashes: dict[str, int] = {}

    def signature(self, text: str) -> np.ndarray:
        """Return the signature of a text; a text without words has all ones."""
        shingles_W = self.shingles(text)
        signature_P = np.full(self._config.num_hashes, 2**32 - 1, dtype=np.uint32)
        for first in range(0, len(shingles_W), _CHUNK):
            chunk = shingles_W[first : first + _CHUNK]
            hashes_PW = chunk * self._multipliers_P[:, None] + self._offsets_P[:, None]
            minima_P = (hashes_PW >> np.uint64(32)).min(axis=1).astype(np.uint32)
            np.minimum(signature_P, minima_P, out=signature_P)
        return signature_P

    def shingles(self, text: str) -> np.ndarray:
        """Return the distinct hashes (uint64) of a text's word n-grams."""
        words = _WORD.findall(text.lower())
        known = self._word_hashes
        for word in set(words) - known.keys():
            known[word] = zlib.crc32(word.encode())
        hashes = np.fromiter(map(known.__getitem__, words), dtype=np.uint64, count=len(words))
        size = min(self._config.shingle_words, len(words))
        if size == 0:
            return hashes
        rolled = np.zeros(len(words) - size + 1, dtype=np.uint64)
        for place in range(size):
            rolled = mix64(rolled + hashes[place : place + len(rolled)])
        return np.unique(rolled)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Return the exact Jaccard index of two arrays of distinct hashes."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - shared
    return shared / union if union else 1.0


def find_near_duplicates(signatures_DP: np.ndarray, config: DedupConfig) -> dict[int, int]:
    """Return ``{duplicate: earlier document it resembles}``.

    A document is dropped only for one that stays, so that a chain of small changes does not drop
    texts which differ from all that remains.
    """
    duplicates: dict[int, int] = {}
    pairs = np.array(sorted(set(_candidates(signatures_DP, config))), dtype=np.int64)
    if not len(pairs):
        return duplicates
    similar = _similarities(signatures_DP, pairs) >= config.threshold
    # Sorted by the later document: when it is judged, the fate of earlier ones is known.
    for later, earlier in pairs[similar].tolist():
        if earlier not in duplicates and later not in duplicates:
            duplicates[later] = earlier
    return duplicates


def _similarities(signatures_DP: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the estimated Jaccard index of each pair, in chunks to bound memory."""
    parts = [
        (signatures_DP[chunk[:, 0]] == signatures_DP[chunk[:, 1]]).mean(axis=1)
        for chunk in np.array_split(pairs, len(pairs) // _CHUNK + 1)
    ]
    return np.concatenate(parts)


def _candidates(signatures_DP: np.ndarray, config: DedupConfig) -> Iterator[tuple[int, int]]:
    """Yield pairs (later, earlier) that agree in a band."""
    rows = config.num_hashes // config.num_bands
    for band in range(config.num_bands):
        part = np.ascontiguousarray(signatures_DP[:, band * rows : (band + 1) * rows])
        keys = part.view([("", part.dtype)] * rows).ravel()
        _, group_of, counts = np.unique(keys, return_inverse=True, return_counts=True)
        order = np.argsort(group_of.ravel(), kind="stable")
        ends = np.cumsum(counts)
        for group in np.flatnonzero(counts > 1):
            members = order[ends[group] - counts[group] : ends[group]].tolist()
            # All pairs of a small group; of a large one, each member with the first few.
            for earlier, later in itertools.combinations(members[:_MAX_GROUP], 2):
                yield later, earlier
            for later in members[_MAX_GROUP:]:
                yield from ((later, earlier) for earlier in members[:4])
