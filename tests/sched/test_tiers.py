from __future__ import annotations

import pytest

from tests.sched.fake_runner import FakeRunner
from weft.core.errors import ConfigError
from weft.sched.config import SchedulerConfig
from weft.sched.loop import ServingLoop, VirtualClock
from weft.sched.plan import BlockTransfers, SequenceUpdate
from weft.sched.scheduler import Scheduler
from weft.sched.tier_policy import Tier, TierConfig
from weft.sched.tiers import Tiers
from weft.spec.request import Request
from weft.spec.sampling import SamplingParams

H, D = Tier.HOST, Tier.DISK
A, B, C, E = b"a", b"b", b"c", b"e"


def tiers(num_host: int, num_disk: int = 0, **settings: str) -> Tiers:
    config = TierConfig(host_bytes=10 * num_host, disk_bytes=10 * num_disk, **settings)
    return Tiers(config, block_bytes=10, block_size=4)


def stored(*keys: bytes, num_host: int, num_disk: int = 0) -> Tiers:
    kept = tiers(num_host, num_disk)
    for block, key in enumerate(keys):
        kept.store(key, block)
        kept.check()
        kept.take()
    return kept


def test_a_store_is_planned_once_and_then_found():
    kept = tiers(2)
    kept.store(A, 7)
    kept.store(A, 8)
    assert kept.take() == BlockTransfers(stores=((7, 0),))
    assert kept.take() == BlockTransfers()
    assert kept.find([A, B]) == [H]
    assert kept.find([B, A]) == []
    assert kept.counters.num_stored_blocks == 1


def test_a_full_host_spills_its_oldest_block_before_the_store_takes_its_slot():
    kept = stored(A, B, num_host=2, num_disk=2)
    kept.store(C, 5)
    assert kept.take() == BlockTransfers(spills=((0, 0),), stores=((5, 0),))
    assert kept.find([A, B, C]) == [D, H, H]


def test_without_a_disk_the_oldest_block_is_gone():
    kept = stored(A, B, C, num_host=2)
    assert kept.find([A]) == []
    assert kept.find([B, C]) == [H, H]


def test_a_chain_is_evicted_from_its_end():
    kept = stored(A, B, C, num_host=3)
    kept.touch([A, B, C])
    kept.store(E, 9)
    assert kept.find([A, B, C]) == [H, H]


def test_a_block_on_disk_is_fetched_and_loaded_in_one_plan():
    kept = stored(A, B, C, num_host=2, num_disk=2)
    assert kept.find([A, B, C]) == [D, H, H]
    # A has to go through the host, whose slots are all wanted for the chain itself.
    assert kept.stage([A, B, C]) == 0
    kept.take()
    assert kept.stage([A]) == 1
    kept.load([A], [6])
    kept.check()
    assert kept.take() == BlockTransfers(spills=((0, 1),), fetches=((0, 0),), loads=((0, 6),))
    assert kept.counters.num_disk_hit_tokens == 4
    assert kept.find([A, B, C]) == [H, H, D]


def test_what_a_plan_reads_is_not_overwritten_by_it():
    kept = stored(A, num_host=1)
    assert kept.stage([A]) == 1
    kept.load([A], [3])
    kept.store(B, 4)
    kept.check()
    assert kept.take() == BlockTransfers(loads=((0, 3),))
    assert kept.counters.num_skipped_blocks == 1
    kept.store(B, 4)
    assert kept.take() == BlockTransfers(stores=((4, 0),))


def test_a_slot_stored_to_in_a_plan_is_not_spilled_by_it():
    kept = tiers(1, 4)
    kept.store(A, 1)
    kept.store(B, 2)
    assert kept.take() == BlockTransfers(stores=((1, 0),))
    assert kept.find([B]) == []


def test_a_block_that_is_on_disk_already_is_not_written_again():
    kept = stored(A, B, num_host=1, num_disk=4)
    assert kept.stage([A]) == 1
    kept.take()
    kept.store(C, 5)
    assert kept.take() == BlockTransfers(stores=((5, 0),))
    assert kept.counters.num_spilled_blocks == 2


def test_staging_ends_where_the_host_has_no_room():
    kept = stored(A, B, C, E, num_host=1, num_disk=4)
    assert kept.find([A, B]) == [D, D]
    assert kept.stage([A, B]) == 1
    kept.load([A], [0])
    assert kept.take().fetches == ((0, 0),)
    assert kept.counters.num_skipped_blocks == 1


def test_lost_blocks_are_forgotten_everywhere():
    kept = stored(A, B, num_host=1, num_disk=2)
    kept.store(C, 5)
    kept.drop([A, B, C])
    kept.check()
    assert kept.find([A]) == kept.find([B]) == kept.find([C]) == []
    assert kept.take() == BlockTransfers()


def test_a_disk_that_is_switched_off_is_never_asked_again():
    kept = stored(A, B, num_host=1, num_disk=2)
    kept.disable_disk()
    assert kept.find([A]) == []
    kept.store(C, 5)
    kept.check()
    assert kept.take() == BlockTransfers(stores=((5, 0),))
    assert kept.counters.num_disk_failures == 1


def test_clearing_forgets_blocks_and_moves():
    kept = stored(A, B, num_host=1, num_disk=2)
    kept.store(C, 5)
    kept.clear()
    kept.check()
    assert kept.take() == BlockTransfers()
    assert kept.find([A]) == kept.find([B]) == kept.find([C]) == []


@pytest.mark.parametrize(("policy", "expected"), [("write_back", False), ("write_through", True)])
def test_write_policy_says_when_to_store(policy: str, expected: bool):
    assert tiers(1, write_policy=policy).writes_through is expected


# The same through the scheduler: three blocks on the device, a runner that remembers everything.


def scheduler(num_blocks: int = 4, **settings: object) -> tuple[Scheduler, FakeRunner, ServingLoop]:
    below = {"host_bytes": 8, "disk_bytes": 0, "prefill_tokens_per_s": 1e-3}
    depth = settings.pop("depth", 0)
    config = SchedulerConfig(
        num_blocks=num_blocks,
        block_size=2,
        block_bytes=1,
        max_context=32,
        tiers=TierConfig(**below | settings),
        seed=0,
    )
    requests: dict[str, Request] = {}
    chosen, runner = Scheduler(config), FakeRunner(config, requests)
    loop = ServingLoop(chosen, runner, VirtualClock(), depth=depth)
    return chosen, runner, loop


def serve(
    loop: ServingLoop, runner: FakeRunner, name: str, prompt: tuple[int, ...]
) -> list[SequenceUpdate]:
    sampling = SamplingParams(max_tokens=2, seed=1)
    runner.requests[name] = Request(name, prompt, sampling)
    loop.submit(runner.requests[name])
    updates = []
    while loop.has_work:
        updates += loop.step()
        assert loop.failure is None, loop.failure
        loop.scheduler.check()
    return updates


FIRST, SECOND = (1, 2, 3, 4, 5), (11, 12, 13, 14, 15)


def test_write_back_stores_blocks_when_their_places_are_taken():
    chosen, runner, loop = scheduler(write_policy="write_back")
    serve(loop, runner, "a", FIRST)
    assert all(plan.blocks == BlockTransfers() for plan in runner.plans)
    serve(loop, runner, "b", SECOND)
    stored = [plan.blocks.stores for plan in runner.plans if plan.blocks.stores]
    # One of four blocks was blank; the chain of the first prompt is taken from its end.
    assert [len(stores) for stores in stored] == [2]
    assert serve(loop, runner, "c", FIRST)[0].num_cached_tokens == 4
    # The beginning never left the device.
    assert chosen.stats().tiers.counters.num_host_hit_tokens == 2


def test_write_through_stores_blocks_when_they_are_computed():
    chosen, runner, loop = scheduler(num_blocks=8, write_policy="write_through")
    serve(loop, runner, "a", FIRST)
    stored = [plan.blocks.stores for plan in runner.plans]
    # Two blocks of the prompt with the step behind it; the third is full with the last step, and
    # its move waits for a plan that computes something.
    assert [len(stores) for stores in stored] == [0, 2]
    serve(loop, runner, "b", SECOND)
    assert [len(plan.blocks.stores) for plan in runner.plans] == [0, 2, 1, 2]
    assert chosen.stats().tiers.counters.num_stored_blocks == 6


def test_a_block_is_stored_once_however_often_it_comes_and_goes():
    chosen, runner, loop = scheduler()
    for index in range(6):
        serve(loop, runner, f"r{index}", (FIRST, SECOND)[index % 2])
    # Both beginnings stay on the device, and two blocks of each prompt take turns there.
    assert chosen.stats().tiers.counters.num_stored_blocks == 4
    # The last of the three may not be read, as a token must be left to compute.
    assert chosen.stats().tiers.counters.num_loaded_blocks == 4


@pytest.mark.parametrize("depth", [0, 1])
def test_a_sequence_that_lost_its_blocks_computes_them_again(depth: int):
    chosen, runner, loop = scheduler(host_bytes=1, disk_bytes=20, depth=depth)
    expected = serve(loop, runner, "a", FIRST)
    for index in range(4):
        serve(loop, runner, f"b{index}", (20 + index,) * 5)
    runner.tiers.corrupt(sorted(runner.tiers.disk))
    again = serve(loop, runner, "c", FIRST)
    assert [update.token for update in again] == [update.token for update in expected]
    tiers = chosen.stats().tiers
    assert tiers.counters.num_lost == 1
    plan = next(plan for plan in runner.plans if plan.preempted)
    # It starts again from the beginning, and the runner is told to forget where it was.
    (item,) = (item for item in plan.items if item.id in plan.preempted)
    assert item.start == 0


def test_a_disk_error_is_heard_once():
    chosen, runner, loop = scheduler(host_bytes=1, disk_bytes=20)
    runner.tiers.disk_is_full = True
    for index in range(6):
        serve(loop, runner, f"b{index}", (20 + index,) * 5)
    tiers = chosen.stats().tiers
    assert (tiers.num_disk_blocks, tiers.counters.num_disk_failures) == (0, 1)
    assert tiers.counters.num_spilled_blocks == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"enable_prefix_cache": False}, "the prefix cache is off"),
        ({"block_bytes": 9}, "the host tier has 8 bytes, and a block of keys and values takes 9"),
        ({"block_bytes": 0}, "takes 0"),
    ],
)
def test_tiers_that_could_hold_nothing_are_refused(settings, message):
    below = {"block_bytes": 1, "tiers": TierConfig(host_bytes=8)}
    with pytest.raises(ConfigError, match=message):
        SchedulerConfig(num_blocks=4, max_context=32, **below | settings)
