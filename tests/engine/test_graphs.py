"""A replay over static buffers gives what an eager step gives, for every size of the ladder."""

from __future__ import annotations

import random

import pytest
import torch

from tests.engine.features.support import (
    GREEDY,
    SEEDED,
    assert_same,
    completions,
    config,
    core_of,
    requests,
    tiny,
)
from weft.engine.batch import StepBatch, build_batch
from weft.engine.graphs import LADDER, CudaCapture, GraphLadder, bucket_for, can_record, rerun
from weft.nn.context import StepContext
from weft.nn.kv_cache import KVCache
from weft.sched.plan import Draft, StepItem

BLOCK_SIZE, CONTEXT = 4, 20


def test_the_ladder_has_36_sizes() -> None:
    assert len(LADDER) == 36
    assert LADDER[:6] == (1, 2, 4, 8, 16, 32)
    assert LADDER[-1] == 512


@pytest.mark.parametrize(
    ("num_rows", "size"),
    [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (257, 272), (512, 512), (513, None)],
)
def test_a_step_takes_the_smallest_size_that_holds_it(num_rows: int, size: int | None) -> None:
    assert bucket_for(num_rows) == size


def cache_of(kind: str, num_blocks: int) -> KVCache:
    """Return a cache full of noise, with a block to spare for padding."""
    cache = KVCache(tiny(kind).spec, num_blocks=num_blocks + 1, block_size=BLOCK_SIZE)
    generator = torch.Generator().manual_seed(0)
    for layer in cache.tokens:
        for stored in layer.values():
            stored.normal_(generator=generator)
    return cache


def step_of(num_rows: int, seed: int, num_blocks: int) -> StepBatch:
    """Return a decode step of sequences of many lengths."""
    rng = random.Random(seed)
    blocks, items = rng.sample(range(num_blocks), num_blocks), []
    for id in range(num_rows):
        start = rng.randrange(CONTEXT)
        table = tuple(blocks.pop() for _ in range(start // BLOCK_SIZE + 1))
        items.append(StepItem(id, (rng.randrange(300),), start, table, True))
    return build_batch(items, BLOCK_SIZE)


def ladder_of(kind: str, cache: KVCache, **options) -> GraphLadder:
    sizes = {"max_context": CONTEXT, "max_rows": 512, "capture": rerun} | options
    return GraphLadder(tiny(kind), cache, device=torch.device("cpu"), **sizes)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["dense", "windows", "sinks"])
def test_a_replay_equals_an_eager_step_in_every_bucket(kind: str) -> None:
    num_blocks = 512 * CONTEXT // BLOCK_SIZE
    cache, eager = cache_of(kind, num_blocks), cache_of(kind, num_blocks)
    ladder = ladder_of(kind, cache)
    with torch.inference_mode():
        for stored, noise in zip(_tensors(cache), _tensors(eager), strict=True):
            stored.copy_(noise)  # capturing wrote into the spare block
    # Up and down, so that smaller steps follow larger ones.
    for size in (*LADDER, *LADDER[::-5]):
        for num_rows in {size, max(1, size - 1)}:
            step = step_of(num_rows, size, num_blocks)
            expected_TD = tiny(kind)(step.tokens_T, StepContext.paged(eager, step.paged))
            got_TD = ladder.run(step)
            assert got_TD is not None
            torch.testing.assert_close(got_TD, expected_TD, atol=2e-5, rtol=1e-4)
    owned = num_blocks * BLOCK_SIZE
    for got, expected in zip(_tensors(cache), _tensors(eager), strict=True):
        torch.testing.assert_close(got[:owned], expected[:owned], atol=2e-5, rtol=1e-4)


def _tensors(cache: KVCache) -> list[torch.Tensor]:
    return [stored for layer in cache.tokens for stored in layer.values()]


@torch.inference_mode()
def test_numbers_that_are_not_finite_stay_in_their_sequence() -> None:
    cache = cache_of("sinks", 40)
    ladder = ladder_of("sinks", cache, max_rows=4)
    wide = StepItem(0, (5,), 15, (0, 1, 2, 3), True)
    ladder.run(build_batch([wide], BLOCK_SIZE))
    for stored in _tensors(cache):
        stored[4 : 4 * BLOCK_SIZE] = float("nan")  # blocks 1 to 3 now belong to someone else
    got_TD = ladder.run(build_batch([StepItem(1, (5,), 2, (0,), True)], BLOCK_SIZE))
    assert got_TD is not None
    assert got_TD.isfinite().all()


def test_recordings_are_made_from_large_to_small() -> None:
    sizes = []

    def capture(function):
        output, replay = rerun(function)
        sizes.append(len(output))
        return output, replay

    with torch.inference_mode():
        ladder = ladder_of("dense", cache_of("dense", 8), capture=capture, max_rows=20)
    assert sizes == [32, 16, 8, 4, 2, 1]
    assert ladder.ladder == (1, 2, 4, 8, 16, 32)


@torch.inference_mode()
def test_steps_of_another_shape_are_left_to_the_eager_path() -> None:
    ladder = ladder_of("dense", cache_of("dense", 40), max_rows=4)
    prefill = StepItem(0, (1, 2, 3), 0, (0,), True)
    decode = StepItem(1, (4,), 3, (1,), True)
    guessing = StepItem(2, (4,), 3, (1, 2), True, Draft((7,)))
    many = [StepItem(id, (4,), 3, (id,), True) for id in range(5)]
    for items in ([prefill], [decode, prefill], [guessing], many):
        assert ladder.run(build_batch(items, BLOCK_SIZE)) is None
    assert ladder.run(build_batch([decode], BLOCK_SIZE)) is not None


@pytest.mark.parametrize("kind", ["dense", "windows", "sinks", "softcap"])
def test_an_engine_with_recordings_gives_the_same_completions(kind: str) -> None:
    settings = config(num_blocks=12, max_tokens_per_step=9)
    wanted = requests([GREEDY, SEEDED, GREEDY] * 2)
    expected = completions(settings, wanted, decoder=tiny(kind))
    core = core_of(settings, tiny(kind))
    calls = _record(core)
    assert_same(completions(core, wanted), expected, abs=1e-4)
    assert core.stats().scheduler.counters.num_preemptions > 0
    assert None in calls, "prefill"
    assert sum(output is not None for output in calls) > 10


def _record(core) -> list[torch.Tensor | None]:
    """Give an engine recordings, over a cache with a spare block; return what runs gave."""
    runner, old = core.runner, core.runner.cache
    cache = KVCache(core.model.spec, num_blocks=old.num_blocks + 1, block_size=old.block_size)
    runner.cache = runner.forward.cache = cache
    runner.forward.record_graphs(rerun, max_context=128, max_rows=16)
    ladder = runner.forward.graphs
    calls, run = [], ladder.run

    def spy(step):
        calls.append(run(step))
        return calls[-1]

    ladder.run = spy
    return calls


def test_only_models_without_numbers_in_python_are_recorded() -> None:
    assert all(can_record(tiny(kind).spec) for kind in ("dense", "windows", "sinks", "softcap"))
    assert not can_record(tiny("latent").spec)
    assert not can_record(tiny("rwkv").spec)


@pytest.mark.gpu
@torch.inference_mode()
def test_a_cuda_graph_replays_what_an_eager_step_gives() -> None:
    device = torch.device("cuda")
    model = tiny().to(device)
    num_blocks = 64 * CONTEXT // BLOCK_SIZE
    caches = [
        KVCache(model.spec, num_blocks=num_blocks + 1, block_size=BLOCK_SIZE, device=device)
        for _ in range(2)
    ]
    ladder = GraphLadder(
        model, caches[0], max_context=CONTEXT, max_rows=64, device=device, capture=CudaCapture()
    )
    for num_rows in (64, 3, 17, 1, 40):
        rng = random.Random(num_rows)
        items = [
            StepItem(id, (rng.randrange(300),), 4, (2 * id, 2 * id + 1), True)
            for id in range(num_rows)
        ]
        step = build_batch(items, BLOCK_SIZE, device)
        expected_TD = model(step.tokens_T, StepContext.paged(caches[1], step.paged))
        torch.testing.assert_close(ladder.run(step), expected_TD, atol=1e-4, rtol=1e-4)
