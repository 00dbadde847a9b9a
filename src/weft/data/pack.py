"""Packing: which tokens share a sequence.

Two ways, both keeping document boundaries:

- *concat*: documents follow each other in one stream that is cut every ``capacity`` tokens. No
  token is lost or padded; documents are cut wherever the cut falls.
- *best fit*: documents longer than ``capacity`` are cut, the pieces are placed into as few bins as
  possible. Short documents stay whole; a bin may have a little room left (Ding et al. 2024,
  "Fewer Truncations Improve Language Modeling", arXiv:2404.10830).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def length_groups(lengths: Sequence[int], tokens_per_group: int) -> Iterator[list[int]]:
    """Yield the numbers of texts, shortest first, in groups of at most so many tokens.

    A text that is longer alone is a group of its own.

    >>> list(length_groups([5, 1, 9, 2], 8))
    [[1, 3, 0], [2]]
    """
    rows: list[int] = []
    num_tokens = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and num_tokens + lengths[row] > tokens_per_group:
            yield rows
            rows, num_tokens = [], 0
        rows.append(row)
        num_tokens += lengths[row]
    if rows:
        yield rows


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Return the bin of each piece by best-fit decreasing; no bin exceeds ``capacity``.

    Each piece goes, longest first, into the fullest bin that still takes it. At most 11/9 of the
    optimal number of bins plus 6/9 (Dósa 2007, for the first-fit rule; the same bound holds).
    Room is a whole number, so "fullest bin with room for n" is the lowest set bit at or above n
    of one integer whose bit r says that some bin has r tokens of room.

    >>> best_fit(np.array([3, 5, 2]), 5).tolist()
    [1, 0, 1]
    """
    if len(lengths) and (lengths.min() < 1 or lengths.max() > capacity):
        raise ValueError(f"lengths must be between 1 and the capacity {capacity}")
    bins = np.empty(len(lengths), dtype=np.int64)
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    has_room = 0
    num_bins = 0
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        candidates = has_room >> length
        if candidates:
            room = length + (candidates & -candidates).bit_length() - 1
            bin_ = with_room[room].pop()
            if not with_room[room]:
                has_room ^= 1 << room
        else:
            room, bin_ = capacity, num_bins
            num_bins += 1
        bins[piece] = bin_
        room -= length
        if not with_room[room]:
            has_room |= 1 << room
        with_room[room].append(bin_)
    return bins


def group_by_bin(bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(pieces, starts)``: bin b holds ``pieces[starts[b]:starts[b + 1]]``, in order."""
    pieces = np.argsort(bins, kind="stable")
    counts = np.bincount(bins) if len(bins) else np.empty(0, np.int64)
    return pieces, np.concatenate([[0], np.cumsum(counts)])


def cut_documents(offsets: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut every document into pieces of at most ``capacity``; return their starts and lengths.

    ``offsets`` is ``[num_documents + 1]``: where each document begins in the stream.

    >>> [array.tolist() for array in cut_documents(np.array([0, 5, 7]), 3)]
    [[0, 3, 5], [3, 2, 2]]
    """
    begins, ends = np.asarray(offsets[:-1]), np.asarray(offsets[1:])
    counts = -(-(ends - begins) // capacity)
    document = np.repeat(np.arange(len(begins)), counts)
    nth = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = begins[document] + nth * capacity
    return starts, np.minimum(ends[document] - starts, capacity)


def split_at_documents(offsets: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return the lengths of the document pieces inside ``[start, stop)`` of the stream.

    >>> split_at_documents(np.array([0, 5, 7]), 3, 7).tolist()
    [2, 2]
    """
    first = np.searchsorted(offsets, start, side="right")
    last = np.searchsorted(offsets, stop, side="left")
    return np.diff(np.concatenate([[start], offsets[first:last], [stop]]))
