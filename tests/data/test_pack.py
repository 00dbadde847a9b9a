from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.data.pack import best_fit, cut_documents, group_by_bin, split_at_documents

from .strategies import document_lengths


@given(capacity=st.integers(1, 60), data=st.data())
def test_best_fit_places_every_piece_once_within_capacity(
    capacity: int, data: st.DataObject
) -> None:
    lengths = np.array(data.draw(st.lists(st.integers(1, capacity), max_size=80)), dtype=np.int64)
    pieces, starts = group_by_bin(best_fit(lengths, capacity))
    assert sorted(pieces.tolist()) == list(range(len(lengths)))
    for first, last in itertools.pairwise(starts):
        assert 1 <= lengths[pieces[first:last]].sum() <= capacity


def optimal_bins(lengths: list[int], capacity: int) -> int:
    """Exhaustive search with pruning: place each piece into every bin that differs in room."""
    best = len(lengths)

    def place(index: int, rooms: list[int]) -> None:
        nonlocal best
        if len(rooms) >= best:
            return
        if index == len(lengths):
            best = len(rooms)
            return
        for room in set(rooms):
            if room >= lengths[index]:
                rest = list(rooms)
                rest.remove(room)
                place(index + 1, [*rest, room - lengths[index]])
        place(index + 1, [*rooms, capacity - lengths[index]])

    place(0, [])
    return best


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_best_fit_is_within_its_proved_bound_of_the_optimum(lengths: list[int]) -> None:
    used = int(best_fit(np.array(lengths), 20).max()) + 1
    assert used <= 11 / 9 * optimal_bins(sorted(lengths, reverse=True), 20) + 6 / 9


def test_best_fit_wastes_almost_nothing_on_many_documents() -> None:
    lengths = np.minimum(np.random.default_rng(0).lognormal(5, 1, 20_000).astype(int) + 1, 1024)
    num_bins = int(best_fit(lengths, 1024).max()) + 1
    assert lengths.sum() / (num_bins * 1024) > 0.995


def test_best_fit_prefers_the_fullest_bin_that_fits() -> None:
    # 6 and 5 open a bin each (room 4 and 5); 4 belongs to the tighter of the two.
    assert best_fit(np.array([6, 5, 4]), 10).tolist() == [0, 1, 0]


@pytest.mark.parametrize("lengths", [[0], [11]])
def test_impossible_pieces_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="between 1 and the capacity 10"):
        best_fit(np.array(lengths), 10)


@given(lengths=document_lengths, capacity=st.integers(1, 50))
def test_cut_pieces_tile_every_document(lengths: list[int], capacity: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    starts, sizes = cut_documents(offsets, capacity)
    covered = [t for a, n in zip(starts, sizes, strict=True) for t in range(a, a + n)]
    assert covered == list(range(offsets[-1]))
    inside = np.searchsorted(offsets, starts, side="right") - 1
    assert (starts + sizes <= offsets[inside + 1]).all()
    assert sizes.max() <= capacity
    assert len(sizes) == sum(-(-length // capacity) for length in lengths)


@given(lengths=document_lengths, data=st.data())
def test_split_keeps_exactly_the_boundaries_inside(lengths: list[int], data: st.DataObject) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    start = data.draw(st.integers(0, int(offsets[-1]) - 1))
    stop = data.draw(st.integers(start + 1, int(offsets[-1])))
    pieces = split_at_documents(offsets, start, stop)
    ends = (start + np.cumsum(pieces)).tolist()
    assert ends == [*[o for o in offsets.tolist() if start < o < stop], stop]
