"""Who is admitted next, and how long the line is."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator

from weft.sched.sequence import Sequence

_NUM_RECENT = 64
_MAX_RETRY_AFTER_S = 60


class RankedQueue:
    """Sequences in order of their ranks."""

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    @property
    def first(self) -> Sequence:
        return self._sequences[0]

    @property
    def last(self) -> Sequence:
        return self._sequences[-1]

    def add(self, sequence: Sequence) -> None:
        """Insert by rank."""
        insort(self._sequences, sequence, key=_rank)

    def remove(self, sequence: Sequence) -> None:
        """Take out a member."""
        index = bisect_left(self._sequences, sequence.rank, key=_rank)
        assert self._sequences[index] is sequence
        del self._sequences[index]


class EndingRate:
    """Estimates how soon a place in the queue becomes free, from the latest endings."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=_NUM_RECENT)

    def note(self, now_s: float) -> None:
        """Record that a request ended."""
        self._times_s.append(now_s)

    def retry_after_s(self) -> int:
        """Return the mean time between endings in whole seconds, at least 1."""
        if len(self._times_s) < 2:
            return 1
        mean_s = (self._times_s[-1] - self._times_s[0]) / (len(self._times_s) - 1)
        return min(max(math.ceil(mean_s), 1), _MAX_RETRY_AFTER_S)


def _rank(sequence: Sequence) -> tuple[int, int, int]:
    return sequence.rank
