"""Prefixes that left the device come back from host memory or disk with their bits (row G22)."""

from __future__ import annotations

import dataclasses
import errno
import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.adapters.support import ROOM, adapter
from tests.engine.features.support import (
    GREEDY,
    PENALISED,
    SEEDED,
    assert_same,
    completions,
    config,
    core_of,
    requests,
    step,
    tiny,
)
from tests.engine.support import assert_nothing_left, tokenizer
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.llm import LLM
from weft.engine.outputs import Completion
from weft.engine.speculation.config import SpeculationConfig
from weft.nn.kv_cache import bytes_per_block
from weft.sched.snapshots import SnapshotConfig
from weft.sched.stats import TierCounters
from weft.sched.tier_policy import TierConfig
from weft.spec import SamplingParams
from weft.spec.request import FinishReason, Request
from weft.spec.structured import Regex

# 25 tokens each with the output, 8 blocks of 4: the device holds one and a half of them.
PROMPTS = [[index + 2] * 9 + [7, index + 40, 9, 11] for index in range(5)]
DEVICE_BLOCKS = 11
# Prompts cut into other chunks are summed in another order; deterministic mode has its own test.
ROUNDING = 1e-4


def offloading(
    num_host: int,
    num_disk: int = 0,
    *,
    path: Path | None = None,
    kind: str = "dense",
    tiers: dict[str, object] | None = None,
    **settings: object,
) -> EngineConfig:
    """Return an engine of few blocks and tiers that are always worth reading from."""
    settings = {"num_blocks": DEVICE_BLOCKS, "max_num_sequences": 4} | settings
    plain = config(**settings)
    model = tiny(kind)
    dtype = plain.cache_dtype(model.dtype)
    size = bytes_per_block(model.spec, plain.block_size, dtype, plain.cache_codes)
    below = TierConfig(
        host_bytes=num_host * size,
        disk_bytes=num_disk * size,
        disk_path=path,
        **{"prefill_tokens_per_s": 1.0} | (tiers or {}),
    )
    return config(**settings, tiers=below)


@functools.cache
def plain(
    params: SamplingParams = GREEDY, *, kind: str = "dense", **settings: object
) -> list[Completion]:
    """Return what an engine with room for everything gives without any cache."""
    roomy = config(enable_prefix_cache=False, **settings)
    return completions(roomy, requests(params, PROMPTS), decoder=tiny(kind))


def rounds(
    core: EngineCore, params: SamplingParams = GREEDY, *, num: int = 2, stagger: int = 0
) -> list[list[Completion]]:
    return [completions(core, requests(params, PROMPTS), stagger=stagger) for _ in range(num)]


def counters(core: EngineCore) -> TierCounters:
    stats = core.stats().scheduler.tiers
    assert stats is not None
    assert stats.num_used_host_blocks <= stats.num_host_blocks
    assert stats.num_used_disk_blocks <= stats.num_disk_blocks
    return stats.counters


@pytest.mark.pair("offload", "cache")
@pytest.mark.parametrize("policy", ["write_back", "write_through"])
@pytest.mark.parametrize("params", [GREEDY, PENALISED], ids=["greedy", "penalised"])
def test_prefixes_come_back_from_the_host(policy: str, params: SamplingParams):
    expected = plain(params)
    core = core_of(offloading(100, tiers={"write_policy": policy}))
    for got in rounds(core, params):
        assert_same(got, expected, abs=ROUNDING)
    assert all(completion.num_cached_tokens == 12 for completion in got)
    seen = counters(core)
    assert seen.num_stored_blocks > 0
    assert seen.num_loaded_blocks > 0
    assert seen.num_host_hit_tokens == 4 * seen.num_loaded_blocks
    assert seen.num_spilled_blocks == seen.num_disk_hit_tokens == seen.num_lost == 0


@pytest.mark.pair("offload", "cache")
@pytest.mark.parametrize("num_host", [1, 2, 5])
def test_a_host_that_is_full_spills_to_disk_and_gets_it_back(num_host: int, tmp_path: Path):
    expected = plain()
    core = core_of(offloading(num_host, 60, path=tmp_path))
    for got in rounds(core):
        assert_same(got, expected, abs=ROUNDING)
    seen = counters(core)
    assert seen.num_spilled_blocks > 0
    assert seen.num_fetched_blocks > 0
    assert seen.num_disk_hit_tokens > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.pair("offload", "cache")
@pytest.mark.parametrize(("num_host", "num_disk"), [(1, 0), (3, 0), (1, 1), (2, 3)])
def test_tiers_too_small_for_anything_only_cost_hits(num_host: int, num_disk: int):
    expected = plain(SEEDED)
    core = core_of(offloading(num_host, num_disk))
    for got in rounds(core, SEEDED):
        assert_same(got, expected, abs=ROUNDING)


@pytest.mark.pair("offload", "cache")
def test_reading_that_does_not_pay_is_not_done():
    core = core_of(offloading(100, tiers={"prefill_tokens_per_s": 1e12}))
    for got in rounds(core):
        assert_same(got, plain(), abs=ROUNDING)
    assert counters(core).num_stored_blocks > 0
    assert counters(core).num_loaded_blocks == 0


@pytest.mark.pair("offload", "preemption")
@pytest.mark.parametrize("policy", ["write_back", "write_through"])
def test_resume_after_swap_is_identical(policy: str):
    core = core_of(offloading(100, num_blocks=8, tiers={"write_policy": policy}))
    (got,) = rounds(core, num=1)
    assert_same(got, plain(), abs=ROUNDING)
    assert core.stats().scheduler.counters.num_preemptions > 0
    # Nothing is shared between the prompts, so what was read is what preemption had put there.
    assert counters(core).num_loaded_blocks > 0
    computed = core.stats().scheduler.counters.num_computed_tokens
    recomputing = core_of(config(num_blocks=8, max_num_sequences=4))
    rounds(recomputing, num=1)
    assert computed < recomputing.stats().scheduler.counters.num_computed_tokens


@pytest.mark.pair("offload", "deterministic")
@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_deterministic_mode_keeps_every_bit(params: SamplingParams, tmp_path: Path):
    expected = plain(params, deterministic=True)
    crowded = offloading(3, 60, path=tmp_path, num_blocks=8, deterministic=True)
    core = core_of(crowded)
    for got in rounds(core, params):
        assert_same(got, expected, abs=0)
    assert core.stats().scheduler.counters.num_preemptions > 0
    assert counters(core).num_fetched_blocks > 0


@pytest.mark.pair("offload", "overlap")
@pytest.mark.parametrize("policy", ["write_back", "write_through"])
def test_overlap_changes_nothing(policy: str, tmp_path: Path):
    expected = plain(SEEDED)
    small = offloading(
        3, 60, path=tmp_path, num_blocks=8, overlap_depth=1, tiers={"write_policy": policy}
    )
    core = core_of(small)
    for got in rounds(core, SEEDED, stagger=1):
        assert_same(got, expected, abs=ROUNDING)
    assert core.stats().scheduler.counters.num_preemptions > 0
    assert counters(core).num_disk_hit_tokens > 0


@pytest.mark.pair("offload", "chunking")
@pytest.mark.parametrize("max_tokens_per_step", [1, 3, 7])
def test_chunk_size_changes_nothing(max_tokens_per_step: int):
    expected = plain()
    core = core_of(offloading(100, max_tokens_per_step=max_tokens_per_step))
    for got in rounds(core):
        assert_same(got, expected, abs=ROUNDING)
    assert counters(core).num_loaded_blocks > 0


@pytest.mark.pair("offload", "quantized_kv")
@pytest.mark.parametrize("kv_dtype", ["int8", "float8_e4m3"])
@pytest.mark.parametrize("kind", ["dense", "latent"])
def test_codes_and_their_factors_move_together(kv_dtype: str, kind: str, tmp_path: Path):
    expected = plain(kind=kind, kv_dtype=kv_dtype)
    core = core_of(offloading(2, 60, path=tmp_path, kind=kind, kv_dtype=kv_dtype), tiny(kind))
    for got in rounds(core):
        assert_same(got, expected, abs=ROUNDING)
    assert counters(core).num_fetched_blocks > 0


@pytest.mark.pair("offload", "windows")
@pytest.mark.parametrize("kind", ["windows", "ring", "latent", "softcap", "sinks"])
def test_every_kind_of_attention_gets_its_blocks_back(kind: str):
    expected = plain(kind=kind)
    core = core_of(offloading(100, kind=kind), tiny(kind))
    for got in rounds(core):
        assert_same(got, expected, abs=ROUNDING)
    assert counters(core).num_loaded_blocks > 0


@pytest.mark.pair("offload", "states")
@pytest.mark.parametrize("kind", ["mamba2", "gated-delta", "rwkv"])
def test_hybrids_read_keys_up_to_a_snapshot(kind: str, tmp_path: Path):
    expected = plain(kind=kind, snapshots=SnapshotConfig(num_slots=0))
    snapshots = SnapshotConfig(interval_tokens=8, num_slots=64)
    small = offloading(8, 60, path=tmp_path, kind=kind, snapshots=snapshots)
    core = core_of(small, tiny(kind))
    for got in rounds(core, num=3):
        assert_same(got, expected, abs=ROUNDING)
    assert all(completion.num_cached_tokens == 8 for completion in got)
    assert counters(core).num_fetched_blocks > 0


def corrupted(core: EngineCore) -> None:
    """Change the first byte of every slot on disk."""
    disk = core.runner.mover.disk
    assert disk is not None
    for offset in range(0, os.fstat(disk.fileno()).st_size, disk.slot_bytes):
        byte = os.pread(disk.fileno(), 1, offset)[0]
        os.pwrite(disk.fileno(), bytes([byte ^ 0xFF]), offset)


def cut(core: EngineCore) -> None:
    """Leave nothing of the file."""
    disk = core.runner.mover.disk
    assert disk is not None
    os.ftruncate(disk.fileno(), 0)


@pytest.mark.pair("offload", "overlap")
@pytest.mark.parametrize(("damage", "overlap_depth"), [(corrupted, 0), (cut, 0), (cut, 1)])
def test_a_damaged_file_costs_time_and_no_request(
    damage: Callable[[EngineCore], None], overlap_depth: int, tmp_path: Path
):
    expected = plain(SEEDED)
    core = core_of(offloading(1, 60, path=tmp_path, overlap_depth=overlap_depth))
    rounds(core, SEEDED, num=2)
    assert counters(core).num_lost == 0
    damage(core)
    for got in rounds(core, SEEDED, stagger=1):
        assert_same(got, expected, abs=ROUNDING)
    assert counters(core).num_lost > 0
    # What was written after the damage is read again.
    before = counters(core).num_disk_hit_tokens
    num_lost = counters(core).num_lost
    for got in rounds(core, SEEDED):
        assert_same(got, expected, abs=ROUNDING)
    assert counters(core).num_disk_hit_tokens > before
    assert counters(core).num_lost == num_lost


@pytest.mark.pair("offload", "cache")
@pytest.mark.parametrize(("num_written", "overlap_depth"), [(0, 1), (3, 0), (17, 0), (17, 1)])
def test_a_full_disk_switches_the_disk_off(
    num_written: int,
    overlap_depth: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    expected = plain()
    core = core_of(offloading(2, 60, path=tmp_path, overlap_depth=overlap_depth))
    write, calls = os.pwrite, []

    def filling(descriptor: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        if len(calls) > num_written:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", filling)
    with caplog.at_level(logging.WARNING):
        for got in rounds(core, num=3):
            assert_same(got, expected, abs=ROUNDING)
    assert len(calls) == num_written + 1
    assert [record.message for record in caplog.records] == [
        f"the disk tier of the KV cache is off from now on: cannot write {tmp_path}: "
        "[Errno 28] No space left on device"
    ]
    stats = core.stats().scheduler.tiers
    assert (stats.num_disk_blocks, stats.counters.num_disk_failures) == (0, 1)
    assert stats.num_used_host_blocks > 0


@pytest.mark.pair("offload", "overlap")
@pytest.mark.parametrize("reason", [FinishReason.ABORT, FinishReason.TIMEOUT])
def test_a_request_may_end_while_its_blocks_are_on_their_way(reason: FinishReason):
    expected = plain()
    core = core_of(offloading(100, overlap_depth=1))
    rounds(core, num=2)
    before = counters(core).num_loaded_blocks
    core.submit(Request("gone", tuple(PROMPTS[0]), GREEDY))
    core.step()
    assert core.loop.num_in_flight == 1
    assert counters(core).num_loaded_blocks > before
    assert core.abort("gone", reason) is not None
    for got in rounds(core):
        assert_same(got, expected, abs=ROUNDING)


@pytest.mark.pair("offload", "cache")
@pytest.mark.parametrize("overlap_depth", [0, 1])
def test_a_failed_forward_pass_leaves_the_tiers_as_they_are(overlap_depth: int, tmp_path: Path):
    expected = plain()
    core = core_of(offloading(2, 60, path=tmp_path, overlap_depth=overlap_depth))
    rounds(core, num=1)

    def broken(module, args):
        raise RuntimeError("broken")

    handle = core.model.register_forward_pre_hook(broken)
    for index, prompt in enumerate(PROMPTS):
        core.submit(Request(f"x{index}", tuple(prompt), GREEDY))
        core.step()
    while core.has_work:
        core.step()
    handle.remove()
    assert core.num_failed_steps > 0
    assert_nothing_left(core)
    for got in rounds(core):
        assert_same(got, expected, abs=ROUNDING)


@pytest.mark.pair("offload", "cache")
def test_new_weights_and_other_salts_find_nothing():
    core = core_of(offloading(100))
    rounds(core, num=1)
    before = counters(core).num_loaded_blocks
    completions(core, requests(GREEDY, PROMPTS, cache_salt="other"))
    assert counters(core).num_loaded_blocks == before
    core.bump_weight_version()
    completions(core, requests(GREEDY, PROMPTS, cache_salt="other"))
    assert counters(core).num_loaded_blocks == before
    rounds(core, num=1)
    completions(core, requests(GREEDY, PROMPTS, cache_salt="other"))
    assert counters(core).num_loaded_blocks > before


@pytest.mark.pair("offload", "pause")
def test_a_retracted_request_goes_on_from_the_host():
    expected = plain()
    core = core_of(offloading(100, num_blocks=24))
    streams = [core.submit(request) for request in requests(GREEDY, PROMPTS)]
    for _ in range(4):
        step(core)
    core.drain()
    core.scheduler.retract()
    while core.has_work:
        step(core)
    assert_same([stream.completion() for stream in streams], expected, abs=ROUNDING)
    assert_nothing_left(core)


@pytest.mark.pair("offload", "speculation")
@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_guesses_are_verified_behind_blocks_that_came_back(params: SamplingParams):
    expected = plain(params)
    guessing = SpeculationConfig(kind="ngram", switch=None)
    core = core_of(offloading(100, num_blocks=9, speculation=guessing))
    for got in rounds(core, params):
        assert_same(got, expected, abs=ROUNDING)
    assert counters(core).num_loaded_blocks > 0


@pytest.mark.pair("offload", "speculation")
def test_the_keys_of_a_drafting_model_move_along():
    target = tiny()
    drafter = tiny(seed=3)
    guessing = SpeculationConfig(kind="draft", switch=None)
    settings = {"num_blocks": 9, "block_size": 4, "max_num_sequences": 4, "speculation": guessing}
    size = 2 * bytes_per_block(target.spec, 4, target.dtype)
    below = TierConfig(host_bytes=50 * size, prefill_tokens_per_s=1.0)
    core = EngineCore(target, tokenizer(), EngineConfig(**settings, tiers=below), drafter=drafter)
    assert core.scheduler.config.block_bytes == size
    assert core.runner.mover.host_bytes == 50 * size
    for got in rounds(core):
        assert_same(got, plain(), abs=ROUNDING)
    assert counters(core).num_loaded_blocks > 0


@pytest.mark.pair("offload", "speculation")
@pytest.mark.parametrize("damage", [corrupted, cut])
def test_guesses_go_on_behind_blocks_that_were_lost(
    damage: Callable[[EngineCore], None], tmp_path: Path
):
    """All guesses of a model that is the target hold, so its lost keys were computed again, too."""
    guessing = SpeculationConfig(kind="draft", switch=None)
    settings = offloading(2, 120, path=tmp_path, speculation=guessing)
    core = EngineCore(tiny(), tokenizer(), settings, drafter=tiny())
    rounds(core)
    damage(core)
    for got in rounds(core):
        assert_same(got, plain(), abs=ROUNDING)
    assert counters(core).num_lost > 0
    stats = core.stats().speculation
    assert stats.num_accepted_tokens == stats.num_draft_tokens > 20


@pytest.mark.pair("offload", "fork")
@pytest.mark.parametrize("overlap_depth", [0, 1])
def test_samples_of_a_prompt_share_blocks_that_came_back(overlap_depth: int, tmp_path: Path):
    roomy = LLM(tiny(), tokenizer(), config(num_blocks=256, enable_prefix_cache=False))
    expected = roomy.generate(PROMPTS, SEEDED, num_samples=3)
    small = offloading(3, 60, path=tmp_path, num_blocks=14, overlap_depth=overlap_depth)
    llm = LLM(tiny(), tokenizer(), small)
    for _ in range(2):
        assert_same(llm.generate(PROMPTS, SEEDED, num_samples=3), expected, abs=ROUNDING)
    corrupted(llm.core)
    assert_same(llm.generate(PROMPTS, SEEDED, num_samples=3), expected, abs=ROUNDING)
    assert counters(llm.core).num_fetched_blocks > 0
    assert_nothing_left(llm.core)


@pytest.mark.pair("offload", "adapters")
def test_each_adapter_gets_its_own_blocks_back():
    def engine(**settings: object) -> EngineCore:
        core = core_of(config(adapters=ROOM, max_num_sequences=4, **settings))
        for seed, name in enumerate("ab"):
            core.adapters.load(name, adapter(seed))
        return core

    wanted = [
        dataclasses.replace(request, id=f"{name}{request.id}", adapter=name)
        for name in ("a", "b", "")
        for request in requests(GREEDY, PROMPTS[:2])
    ]
    expected = completions(engine(enable_prefix_cache=False), wanted)
    below = offloading(100).tiers
    core = engine(num_blocks=DEVICE_BLOCKS, tiers=below)
    for _ in range(3):
        assert_same(completions(core, wanted), expected, abs=ROUNDING)
    assert counters(core).num_loaded_blocks > 0


@pytest.mark.pair("offload", "grammar")
def test_a_grammar_goes_on_behind_blocks_that_came_back():
    params = dataclasses.replace(
        SEEDED, structured=Regex("[a-z ]{4,9}"), max_tokens=12, ignore_eos=False
    )
    expected = plain(params)
    core = core_of(offloading(100, num_blocks=8))
    for got in rounds(core, params):
        assert_same(got, expected, abs=ROUNDING)
    assert counters(core).num_loaded_blocks > 0
