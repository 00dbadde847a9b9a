"""The grouped sum against the row-by-row definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.engine.adapters.update import (
    RowGroups,
    SlotWeights,
    add_updates,
    add_updates_row_by_row,
)

NUM_SLOTS, WIDTH, RANK, NUM_ROWS = 4, 48, 4, 40


def weights(dtype: torch.dtype = torch.float32) -> SlotWeights:
    generator = torch.Generator().manual_seed(0)
    return SlotWeights(
        torch.randn(NUM_SLOTS, RANK, WIDTH, generator=generator).to(dtype),
        torch.randn(NUM_SLOTS, NUM_ROWS, RANK, generator=generator).to(dtype),
    )


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.integers(-1, NUM_SLOTS - 1), min_size=1, max_size=24))
def test_groups_give_what_the_definition_gives(slots_T: list[int]) -> None:
    x_TI, y_TO = rows(len(slots_T), WIDTH, 1), rows(len(slots_T), NUM_ROWS, 2)
    expected_TO = y_TO.clone()
    add_updates_row_by_row(expected_TO, x_TI, weights(), slots_T)
    plain = [slot < 0 for slot in slots_T]
    for stable in (False, True):
        got_TO = y_TO.clone()
        add_updates(got_TO, x_TI, weights(), RowGroups.of(slots_T, NUM_SLOTS, stable=stable))
        torch.testing.assert_close(got_TO, expected_TO, atol=1e-4, rtol=1e-5)
        assert torch.equal(got_TO[plain], y_TO[plain])


@given(st.lists(st.integers(-1, NUM_SLOTS - 1), min_size=1, max_size=24), st.data())
def test_a_row_has_the_same_bits_among_any_others(slots_T: list[int], data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(slots_T) - 1))
    x_TI, y_TO = rows(len(slots_T), WIDTH, 1), rows(len(slots_T), NUM_ROWS, 2)
    alone_1O = y_TO[row : row + 1].clone()
    groups = RowGroups.of([slots_T[row]], NUM_SLOTS, stable=True)
    add_updates(alone_1O, x_TI[row : row + 1], weights(), groups)
    add_updates(y_TO, x_TI, weights(), RowGroups.of(slots_T, NUM_SLOTS, stable=True))
    assert torch.equal(alone_1O[0], y_TO[row])


def test_groups_are_filled_up_only_where_they_are_alike() -> None:
    even = RowGroups.of([1, 2, 1, 2, -1], NUM_SLOTS).even
    assert even is not None
    assert (even.slots, even.rows_P.tolist()) == (slice(1, 3), [0, 2, 1, 3])
    assert even.places_A is None
    filled = RowGroups.of([1, 2, 1], NUM_SLOTS).even
    assert filled is not None
    assert filled.rows_P.tolist() == [0, 2, 1, 0]
    assert RowGroups.of([0] * 20 + [1, 2, 3], NUM_SLOTS).even is None
    assert RowGroups.of([-1, -1], NUM_SLOTS).even is None
    assert RowGroups.of([1, 2], NUM_SLOTS, stable=True).even is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_types_are_added_in_their_type(dtype: torch.dtype) -> None:
    slots_T = [2, -1, 0, 2]
    x_TI, y_TO = rows(4, WIDTH, 1).to(dtype), rows(4, NUM_ROWS, 2).to(dtype)
    expected_TO = y_TO.clone()
    add_updates_row_by_row(expected_TO, x_TI, weights(dtype), slots_T)
    add_updates(y_TO, x_TI, weights(dtype), RowGroups.of(slots_T, NUM_SLOTS))
    assert y_TO.dtype == dtype
    torch.testing.assert_close(y_TO, expected_TO, atol=0.5, rtol=0.05)
