from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.sched.config import SchedulerConfig
from weft.sched.plan import StateTransfers
from weft.sched.snapshots import SnapshotConfig, Snapshots

CHAIN = [b"0-4", b"4-8", b"8-12", b"12-16", b"16-20"]


def snapshots(num_slots: int = 2) -> Snapshots:
    return Snapshots(num_slots, interval=8, block_size=4)


def kept(*keys: bytes, num_slots: int = 2) -> Snapshots:
    copies = snapshots(num_slots)
    for id, key in enumerate(keys):
        copies.save(id, 8, key)
        copies.take()
        copies.settle(id, 8, key)
    copies.check()
    return copies


def test_chunks_end_at_every_boundary():
    assert [snapshots().clip(start, 100) for start in (0, 1, 7, 8, 15, 16)] == [8, 8, 8, 16, 16, 24]
    assert snapshots().clip(8, 10) == 10


def test_only_boundaries_are_saved():
    copies = snapshots()
    copies.save(0, 4, None)
    assert copies.take() == StateTransfers()
    copies.save(0, 8, None)
    assert copies.take() == StateTransfers(saves=((0, 0),))


def test_a_copy_is_found_when_its_step_is_settled_and_not_before():
    copies = snapshots()
    copies.save(3, 8, CHAIN[1])
    copies.take()
    assert copies.stops(CHAIN) == ()
    copies.check()
    copies.settle(3, 8, CHAIN[1])
    copies.check()
    assert copies.stops(CHAIN) == (2,)
    copies.restore(CHAIN[1], 5)
    assert copies.take() == StateTransfers(restores=((0, 5),))
    assert (copies.counters.num_saved, copies.counters.num_restored) == (1, 1)


def test_a_copy_whose_step_failed_is_not_used():
    copies = snapshots(1)
    copies.save(3, 8, CHAIN[1])
    copies.settle(3, 8, None)
    assert copies.stops(CHAIN) == ()
    copies.check()
    copies.save(4, 8, CHAIN[1])
    assert copies.take().saves == ((3, 0), (4, 0))


def test_the_same_position_computed_twice_is_kept_once():
    copies = snapshots()
    copies.save(0, 8, CHAIN[1])
    copies.save(1, 8, CHAIN[1])
    assert copies.take().saves == ((0, 0), (1, 1))
    copies.settle(0, 8, CHAIN[1])
    copies.settle(1, 8, CHAIN[1])
    copies.check()
    assert len(copies.slots) == 1
    copies.save(2, 8, CHAIN[1])
    assert copies.take() == StateTransfers()


def test_the_copy_not_used_for_longest_gives_way():
    copies = kept(CHAIN[1], CHAIN[3])
    copies.restore(CHAIN[1], 9)
    copies.save(7, 24, None)
    # The restore reads its slot before the step, the save writes behind it.
    assert copies.take() == StateTransfers(restores=((0, 9),), saves=((7, 1),))
    assert copies.stops(CHAIN) == (2,)


def test_slots_that_wait_for_their_step_are_not_taken():
    copies = snapshots(1)
    copies.save(0, 8, None)
    copies.save(1, 8, None)
    assert copies.take().saves == ((0, 0),)
    assert copies.counters.num_skipped == 1


def test_clearing_keeps_only_what_waits_for_its_step():
    copies = kept(CHAIN[1])
    copies.save(5, 16, None)
    copies.clear()
    copies.check()
    assert copies.stops(CHAIN) == ()
    copies.settle(5, 16, None)
    assert len(copies.slots) == 0


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="interval_tokens is 0"):
        SnapshotConfig(interval_tokens=0)
    with pytest.raises(ConfigError, match="num_slots is -1"):
        SnapshotConfig(num_slots=-1)


@pytest.mark.parametrize(
    ("interval", "num_slots", "settings", "message"),
    [
        (24, 4, {}, "24 tokens apart, and a block has 16"),
        (32, 0, {}, "0 snapshots are for the prefix cache"),
        (32, 4, {"enable_prefix_cache": False}, "4 snapshots are for the prefix cache"),
    ],
)
def test_snapshots_no_prefix_could_use_are_refused(interval, num_slots, settings, message):
    kept = SnapshotConfig(interval_tokens=interval, num_slots=num_slots)
    with pytest.raises(ConfigError, match=message):
        SchedulerConfig(num_blocks=4, max_context=32, snapshots=kept, **settings)
