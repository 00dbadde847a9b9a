"""Blocks keep their bytes on every way through the tiers, and a bad disk takes nobody down."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import torch

from tests.engine.support import model
from tests.nn.recurrent.models import model_spec
from weft.cli.configs import assemble
from weft.core.errors import ConfigError, ResourceError
from weft.engine import tiers
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.disk import CorruptSlotError, DiskSlots
from weft.engine.tiers import BlockMover, LostSequences, TierSpace
from weft.nn.kv_cache import KVCache
from weft.sched.plan import BlockTransfers, StepItem
from weft.sched.snapshots import SnapshotConfig
from weft.sched.tier_policy import TierConfig

NUM_BLOCKS, BLOCK_SIZE = 6, 4


def cache(dtype: torch.dtype = torch.float32, seed: int = 0) -> KVCache:
    built = KVCache(model().spec, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    for layer in built.tokens:
        for stored in layer.values():
            stored.copy_(torch.randn(stored.shape, generator=generator))
    return built


def mover(*caches: KVCache, num_host: int = 3, num_disk: int = 0, path: Path | None = None):
    return BlockMover(caches, TierSpace(num_host, num_disk, path))


def test_space_is_counted_in_whole_blocks(tmp_path: Path):
    config = TierConfig(host_bytes=399, disk_bytes=1000, disk_path=tmp_path)
    assert TierSpace.of(config, 100) == TierSpace(3, 10, tmp_path)


def test_flags_of_weft_serve_reach_the_tiers_and_the_snapshots(tmp_path: Path):
    flags = [
        "--tiers.host-bytes",
        "1G",
        "--tiers.disk-bytes=2G",
        "--tiers.disk-path",
        str(tmp_path),
    ]
    flags += ["--tiers.write-policy", "write_through", "--snapshots.interval-tokens", "256"]
    assembled = assemble(EngineConfig(), None, flags)
    assert assembled.tiers == TierConfig(
        host_bytes=2**30, disk_bytes=2**31, disk_path=tmp_path, write_policy="write_through"
    )
    assert assembled.snapshots == SnapshotConfig(interval_tokens=256)
    with pytest.raises(ConfigError, match=r"unknown key tiers\.host_byte"):
        assemble(EngineConfig(), None, ["--tiers.host-byte", "1"])
    with pytest.raises(ConfigError, match=r"tiers\.host_bytes is missing"):
        assemble(EngineConfig(), None, ["--tiers.disk-bytes", "1"])


def test_tiers_are_refused_where_they_can_hold_nothing():
    def built(**settings: object) -> EngineCore:
        return EngineCore(model(), config=EngineConfig(num_blocks=8, **settings))

    with pytest.raises(ConfigError, match="the prefix cache is off"):
        built(tiers=TierConfig(host_bytes=2**20), enable_prefix_cache=False)
    with pytest.raises(ConfigError, match=r"host tier has 100 bytes, and a block .* takes 4096"):
        built(tiers=TierConfig(host_bytes=100))


def test_the_memory_plan_shows_the_tiers_and_closing_gives_them_back(tmp_path: Path):
    below = TierConfig(host_bytes=2**20, disk_bytes=2**21, disk_path=tmp_path)
    core = EngineCore(model(), config=EngineConfig(num_blocks=8, tiers=below))
    assert "host tier 1.0 MiB, 4.1k tokens" in core.memory.text
    assert "disk tier 2.0 MiB, 8.19k tokens" in core.memory.text
    mover = core.runner.mover
    assert mover.host_bytes == 2**20
    disk = mover.disk
    assert disk is not None
    core.close()
    assert (mover.host_bytes, mover.disk) == (0, None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(disk.fileno())


def block(of: KVCache, index: int) -> list[torch.Tensor]:
    rows = slice(index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE)
    return [stored[rows].clone() for layer in of.tokens for stored in layer.values()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_a_block_comes_back_from_the_host_with_its_bits(dtype: torch.dtype):
    kv = cache(dtype)
    before = [part.view(torch.uint8) for part in block(kv, 2)]
    moves = mover(kv)
    assert moves.execute(BlockTransfers(stores=((2, 1),))) == {}
    for layer in kv.tokens:
        for stored in layer.values():
            stored.zero_()
    assert moves.execute(BlockTransfers(loads=((1, 5),))) == {}
    assert same([part.view(torch.uint8) for part in block(kv, 5)], before)


def test_every_cache_moves_with_the_same_blocks():
    target, draft = cache(), cache(torch.bfloat16, seed=1)
    before = block(target, 0), block(draft, 0)
    moves = mover(target, draft)
    moves.execute(BlockTransfers(stores=((0, 0),), loads=((0, 4),)))
    assert same(block(target, 4), before[0])
    assert same(block(draft, 4), before[1])
    size = sum(part.nbytes for parts in before for part in parts)
    assert moves.row_bytes == size
    assert moves.host_bytes == 3 * size


def test_one_plan_spills_stores_fetches_loads_and_copies_in_this_order(tmp_path: Path):
    kv = cache()
    first, second, third = (block(kv, index) for index in range(3))
    moves = mover(kv, num_host=1, num_disk=2, path=tmp_path)
    moves.execute(BlockTransfers(stores=((0, 0),)))
    # Slot 0 goes to disk before the second block takes it.
    moves.execute(BlockTransfers(spills=((0, 0),), stores=((1, 0),)))
    # The third block is stored before its place is taken by the first, which comes from disk.
    plan = BlockTransfers(
        spills=((0, 1),), stores=(), fetches=((0, 0),), loads=((0, 2),), copies=((2, 5),)
    )
    assert moves.execute(plan) == {}
    assert same(block(kv, 2), first)
    assert same(block(kv, 5), first)
    assert moves.execute(BlockTransfers(fetches=((1, 0),), loads=((0, 3),))) == {}
    assert same(block(kv, 3), second)
    assert not same(block(kv, 2), third)


def test_copies_need_no_tiers():
    kv = cache()
    before = block(kv, 1)
    assert BlockMover([kv]).execute(BlockTransfers(copies=((1, 3),))) == {}
    assert same(block(kv, 3), before)


@pytest.mark.parametrize("staged", [True, False])
def test_many_blocks_cross_in_parts(staged: bool, monkeypatch: pytest.MonkeyPatch):
    kv = cache()
    before = [block(kv, index) for index in range(3)]
    moves = mover(kv)
    moves.staged = staged
    monkeypatch.setattr(tiers, "STAGING_BYTES", 2 * moves.row_bytes)
    moves.execute(BlockTransfers(stores=((0, 2), (1, 0), (2, 1))))
    moves.execute(BlockTransfers(loads=((2, 3), (0, 4), (1, 5))))
    assert all(same(block(kv, 3 + index), before[index]) for index in range(3))


def test_tensors_may_be_replaced_between_steps():
    kv = cache()
    before = block(kv, 1)
    moves = mover(kv)
    moves.execute(BlockTransfers(stores=((1, 0),)))
    for layer in kv.tokens:
        for name, stored in layer.items():
            layer[name] = torch.zeros_like(stored)
    moves.execute(BlockTransfers(loads=((0, 2),)))
    assert same(block(kv, 2), before)


def on_disk(path: Path) -> tuple[KVCache, BlockMover]:
    """Return a cache whose block 1 is on disk only, in slot 0."""
    kv = cache()
    moves = mover(kv, num_disk=2, path=path)
    moves.execute(BlockTransfers(stores=((1, 0),)))
    moves.execute(BlockTransfers(spills=((0, 0),)))
    return kv, moves


def test_a_changed_file_is_noticed_and_so_is_everything_copied_from_it(tmp_path: Path):
    kv, moves = on_disk(tmp_path)
    os.pwrite(moves.disk.fileno(), b"\xff\x00\xff", 11)
    lost = moves.execute(BlockTransfers(fetches=((0, 2),), loads=((2, 4),), copies=((4, 5),)))
    assert lost.keys() == {4, 5}
    assert "does not hold what was written" in lost[4]
    # The bad slot stays bad until something else is stored there.
    assert moves.execute(BlockTransfers(loads=((2, 3),))).keys() == {3}
    moves.execute(BlockTransfers(spills=((2, 1),)))
    assert moves.execute(BlockTransfers(fetches=((1, 1),), loads=((1, 3),))).keys() == {3}
    assert moves.execute(BlockTransfers(stores=((0, 2),), loads=((2, 3),))) == {}
    assert same(block(kv, 3), block(kv, 0))


def test_a_file_cut_short_is_noticed(tmp_path: Path):
    _, moves = on_disk(tmp_path)
    os.ftruncate(moves.disk.fileno(), moves.row_bytes // 2)
    assert moves.execute(BlockTransfers(fetches=((0, 2),), loads=((2, 4),))).keys() == {4}


def test_a_full_disk_ends_the_disk_tier_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    kv, moves = on_disk(tmp_path)
    kept = block(kv, 2)

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with caplog.at_level(logging.WARNING):
        moves.execute(BlockTransfers(spills=((0, 1), (1, 0)), stores=((2, 0),)))
        moves.execute(BlockTransfers(spills=((0, 1),)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left" in (moves.disk_error or "")
    assert moves.execute(BlockTransfers(loads=((0, 4),))) == {}
    assert same(block(kv, 4), kept)
    assert moves.execute(BlockTransfers(fetches=((0, 1),), loads=((1, 5),))).keys() == {5}


def test_a_step_that_fails_on_the_way_leaves_no_slot_that_looks_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, moves = on_disk(tmp_path)
    monkeypatch.setattr(moves, "_store", lambda stores: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        moves.execute(BlockTransfers(stores=((2, 0),), fetches=((0, 1),)))
    monkeypatch.undo()
    assert moves.execute(BlockTransfers(loads=((0, 3), (1, 4)))).keys() == {3, 4}


def test_disk_space_is_taken_at_once_and_given_back(tmp_path: Path):
    slots = DiskSlots(tmp_path, 10, 4096)
    assert os.fstat(slots.fileno()).st_size == 40960
    assert os.fstat(slots.fileno()).st_blocks * 512 >= 40960
    assert list(tmp_path.iterdir()) == []
    slots.close()
    slots.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(slots.fileno())


def test_disk_slots_are_checked(tmp_path: Path):
    slots, data = DiskSlots(tmp_path, 2, 8), bytearray(8)
    slots.write(1, memoryview(b"abcdefgh"))
    slots.read(1, memoryview(data))
    assert bytes(data) == b"abcdefgh"
    with pytest.raises(CorruptSlotError, match="slot 0"):
        slots.read(0, memoryview(data))
    slots.spoil(1)
    with pytest.raises(CorruptSlotError, match="slot 1"):
        slots.read(1, memoryview(data))


def test_a_disk_that_is_too_small_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceError, match=r"80 bytes in .*No space left"):
        DiskSlots(tmp_path, 10, 8)
    with pytest.raises(ConfigError, match="does not exist"):
        DiskSlots(tmp_path / "nowhere", 10, 8)


def test_memory_that_is_not_there_is_refused():
    with pytest.raises(ResourceError, match="host tier needs"):
        mover(cache(), num_host=2**50)


def test_a_cache_of_states_alone_has_no_blocks_to_move():
    spec = model_spec("mamba2", hybrid=False)
    kv = KVCache(spec, num_blocks=2, block_size=4, num_sequences=2)
    moves = BlockMover([kv])
    assert moves.row_bytes == 0
    assert moves.execute(BlockTransfers(copies=((0, 1),))) == {}


def test_sequences_stay_lost_until_they_are_taken_back():
    lost = LostSequences()
    first = StepItem(1, (9,), 8, (4, 5, 6), True)
    fresh = StepItem(2, (9,), 4, (3, 5), True)
    assert lost.reasons([first, fresh], {5: "gone"}, 4) == {1: "gone"}
    # The next step was planned before anybody knew.
    assert lost.reasons([first._replace(start=9), fresh], {}, 4) == {1: "gone"}
    lost.release([1])
    assert lost.reasons([first], {}, 4) == {}
