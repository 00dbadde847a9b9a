from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.plan.occupancy import (
    H100,
    bank_conflicts,
    coalescing,
    fits_in_cache,
    occupancy,
    sectors,
    swizzle,
)


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "blocks", "share", "limit"),
    [
        (256, 32, 0, 8, 1.0, "threads"), (256, 64, 0, 4, 0.5, "registers"),
        (128, 128, 0, 4, 0.25, "registers"), (32, 16, 0, 32, 0.5, "blocks"),
        (256, 32, 48 * 1024, 3, 0.375, "shared memory"), (1024, 64, 0, 1, 0.5, "registers"),
        (96, 255, 0, 2, 0.09375, "registers"),
    ],
)  # fmt: skip
def test_occupancy_of_an_a100(threads, registers, shared, blocks, share, limit):
    found = occupancy(threads, registers, shared)
    assert (found.num_blocks, found.share, found.limited_by) == (blocks, share, limit)


def test_more_shared_memory_admits_more_blocks():
    assert occupancy(128, 32, 64 * 1024).num_blocks < occupancy(128, 32, 64 * 1024, H100).num_blocks


def test_blocks_that_can_never_run_are_refused():
    with pytest.raises(ConfigError, match="1 to 1024 threads"):
        occupancy(2048, 32)
    with pytest.raises(ConfigError, match="shared memory"):
        occupancy(128, 32, 200 * 1024)


def test_columns_conflict_rows_do_not_and_swizzled_tiles_neither_way():
    rows = [4 * (3 * 32 + lane) for lane in range(32)]
    columns = [4 * (lane * 32 + 3) for lane in range(32)]
    padded = [4 * (lane * 33 + 3) for lane in range(32)]
    swizzled = [4 * swizzle(lane, 3, 32) for lane in range(32)]
    assert [bank_conflicts(a) for a in (rows, columns, padded, swizzled)] == [1, 32, 1, 1]
    assert bank_conflicts([4 * swizzle(3, lane, 32) for lane in range(32)]) == 1
    assert bank_conflicts([64] * 32) == 1


def test_swizzling_loses_nothing():
    assert {swizzle(row, column, 32) for row in range(32) for column in range(32)} == set(
        range(1024)
    )


def test_strides_move_bytes_nobody_asked_for():
    near, far = [4 * lane for lane in range(32)], [128 * lane for lane in range(32)]
    assert (sectors(near, 4), coalescing(near, 4)) == (4, 1.0)
    assert (sectors(far, 4), coalescing(far, 4)) == (32, 0.125)
    assert sectors([2 + 4 * lane for lane in range(32)], 4) == 5


def test_a_window_larger_than_the_cache_keeps_a_part():
    assert fits_in_cache(10, 40) == 1.0
    assert fits_in_cache(60, 40) == 0.5
