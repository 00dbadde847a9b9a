from __future__ import annotations

import pytest

from weft.sched.blocks import BlockPool


def allocate(pool: BlockPool, count: int) -> list[int]:
    return [pool.allocate() for _ in range(count)]


def test_fresh_blocks_come_in_order():
    pool = BlockPool(4)
    assert allocate(pool, 3) == [0, 1, 2]
    assert pool.free_order == (3,)


def test_blank_blocks_are_used_before_cached_ones_and_those_least_recent_first():
    pool = BlockPool(4)
    allocate(pool, 4)
    pool.release(2, keep=True)
    pool.release(0, keep=True)
    pool.release(3, keep=False)
    assert pool.free_order == (3, 2, 0)
    assert pool.num_free == 3
    assert pool.num_cached == 2
    pool.check()


def test_a_cached_block_can_be_revived_from_the_middle():
    pool = BlockPool(3)
    allocate(pool, 3)
    for block in (0, 1, 2):
        pool.release(block, keep=True)
    pool.acquire(1)
    assert pool.free_order == (0, 2)
    assert pool.num_references(1) == 1
    pool.check()


def test_a_shared_block_is_free_after_its_last_release():
    pool = BlockPool(1)
    block = pool.allocate()
    pool.acquire(block)
    pool.release(block, keep=True)
    assert pool.num_free == 0
    pool.release(block, keep=True)
    assert pool.free_order == (block,)


def test_dropping_the_cache_keeps_the_blocks_free():
    pool = BlockPool(2)
    allocate(pool, 2)
    pool.release(1, keep=True)
    pool.drop_cached()
    assert (pool.num_free, pool.num_cached) == (1, 0)
    assert pool.allocate() == 1


def test_a_double_release_is_caught():
    pool = BlockPool(1)
    pool.release(pool.allocate(), keep=False)
    with pytest.raises(AssertionError, match="released twice"):
        pool.release(0, keep=False)


def test_check_notices_a_lost_block():
    pool = BlockPool(2)
    pool._blank.clear()
    with pytest.raises(AssertionError):
        pool.check()
