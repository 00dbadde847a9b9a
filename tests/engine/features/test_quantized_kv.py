"""Keys and values of one byte: other numbers than without, and the same however served."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.engine.features.support import (
    GREEDY,
    PENALISED,
    SEEDED,
    assert_same,
    completions,
    config,
    core_of,
    requests,
    tiny,
)
from weft.core.errors import ConfigError
from weft.engine.config import EngineConfig
from weft.engine.memory import plan_memory
from weft.engine.speculation.config import SpeculationConfig, TreeShape
from weft.ops.native.bindings import load_library

KV_TYPES = ["int8", "float8_e4m3", "float8_e5m2"]
MIXED = [GREEDY, SEEDED, PENALISED] * 2
needs_native = pytest.mark.skipif(load_library() is None, reason="no C compiler")


def alone(settings: EngineConfig, decoder):
    return [completions(settings, [one], decoder=decoder)[0] for one in requests(MIXED)]


@needs_native
@pytest.mark.parametrize("kv_dtype", KV_TYPES)
@pytest.mark.pair("quantized_kv", "deterministic")
@pytest.mark.pair("quantized_kv", "chunking")
@pytest.mark.pair("quantized_kv", "batching")
def test_every_way_to_cut_and_batch_gives_the_same_bits(kv_dtype) -> None:
    settings = config(kv_dtype=kv_dtype, deterministic=True)
    expected = alone(settings, tiny())
    assert_same(completions(settings, requests(MIXED)), expected, abs=0)
    for budget in (3, 7):
        cut = config(kv_dtype=kv_dtype, deterministic=True, max_tokens_per_step=budget)
        assert_same(completions(cut, requests(MIXED)), expected, abs=0)


@pytest.mark.parametrize("kv_dtype", KV_TYPES)
def test_quantization_changes_numbers_a_little(kv_dtype) -> None:
    ours = completions(config(kv_dtype=kv_dtype), requests(replace(GREEDY, max_tokens=1)))
    plain = completions(config(), requests(replace(GREEDY, max_tokens=1)))
    moved = [abs(a.logprobs[0] - b.logprobs[0]) for a, b in zip(ours, plain, strict=True)]
    assert 0 < max(moved) < 1.0


@pytest.mark.parametrize("kind", ["dense", "windows", "latent", "softcap", "sinks"])
@pytest.mark.pair("quantized_kv", "batching")
@pytest.mark.pair("quantized_kv", "windows")
def test_a_batch_gives_what_each_request_gives_alone(kind) -> None:
    settings = config(kv_dtype="int8")
    decoder = tiny(kind)
    assert_same(
        completions(settings, requests(MIXED), decoder=decoder), alone(settings, decoder), abs=1e-3
    )


@needs_native
@pytest.mark.pair("quantized_kv", "cache")
def test_a_warm_prefix_gives_what_a_cold_one_gives() -> None:
    core = core_of(config(kv_dtype="int8", deterministic=True))
    cold = completions(core, requests(MIXED))
    before = core.stats().scheduler.counters.num_prefix_hit_tokens
    warm = completions(core, [replace(r, id=f"again {r.id}") for r in requests(MIXED)])
    assert core.stats().scheduler.counters.num_prefix_hit_tokens > before
    assert_same(warm, cold, abs=0)


@needs_native
@pytest.mark.pair("quantized_kv", "preemption")
@pytest.mark.pair("quantized_kv", "deterministic")
def test_preempted_requests_get_the_same() -> None:
    settings = config(kv_dtype="int8", deterministic=True, enable_prefix_cache=False)
    expected = completions(settings, requests())
    core = core_of(replace(settings, num_blocks=12))
    assert_same(completions(core, requests()), expected, abs=0)
    assert core.stats().scheduler.counters.num_preemptions > 0


@pytest.mark.pair("quantized_kv", "windows")
def test_rings_of_quantized_blocks_give_what_whole_contexts_give() -> None:
    decoder, long = tiny("ring"), requests(replace(GREEDY, max_tokens=60))
    whole = completions(config(kv_dtype="int8", num_blocks=256), long, decoder=decoder)
    ring = config(kv_dtype="int8", enable_prefix_cache=False, max_tokens_per_step=8)
    assert_same(completions(ring, long, decoder=decoder), whole, abs=1e-4)


@pytest.mark.pair("quantized_kv", "overlap")
def test_overlapped_steps_give_the_same() -> None:
    ahead, plain = (config(kv_dtype="int8", overlap_depth=depth) for depth in (1, 0))
    assert_same(completions(ahead, requests(MIXED)), completions(plain, requests(MIXED)), abs=1e-5)


@pytest.mark.parametrize("kv_dtype", KV_TYPES)
def test_the_same_memory_holds_more_blocks_and_the_text_says_why(kv_dtype) -> None:
    memory = 10 * 4 * 2 * 2 * 2 * 16 * 4  # blocks, tokens, layers, kinds, heads, width, float32
    plain = plan_memory(EngineConfig(kv_memory_bytes=memory, block_size=4), tiny())
    quantized = plan_memory(
        EngineConfig(kv_memory_bytes=memory, block_size=4, kv_dtype=kv_dtype), tiny()
    )
    assert plain.num_blocks == 10
    assert quantized.num_blocks == memory // (4 * 2 * 2 * 2 * (16 + 4))
    assert f"160 bytes per token, {kv_dtype} with float32 factors" in quantized.text


def test_the_cache_takes_the_bytes_that_were_planned() -> None:
    for kind in ("dense", "latent"):
        core = core_of(config(kv_dtype="int8"), tiny(kind))
        assert core.runner.cache.size_bytes == core.memory.kv_bytes
        assert core.runner.cache.codes is torch.int8


def test_unknown_types_are_refused() -> None:
    with pytest.raises(ConfigError, match="kv_dtype is 'int3'"):
        EngineConfig(kv_dtype="int3")


@pytest.mark.parametrize("speculation", [
    SpeculationConfig("ngram", switch=None),
    SpeculationConfig("suffix", tree=TreeShape(branching=2), switch=None),
], ids=["chain", "tree"])  # fmt: skip
@pytest.mark.pair("quantized_kv", "speculation")
def test_guesses_change_no_token(speculation) -> None:
    """Codes of wrong guesses are written over; those of a branch move as they are."""
    wanted = requests(replace(GREEDY, max_tokens=40), [[5, 7, 11] * 4, [5, 7, 11, 5], [9] * 9])
    plain = completions(config(kv_dtype="int8"), wanted)
    core = core_of(config(kv_dtype="int8", speculation=speculation))
    assert_same(completions(core, wanted), plain, abs=1e-3)
    assert core.stats().speculation.num_accepted_tokens > 0


@pytest.mark.pair("quantized_kv", "fork")
def test_forks_share_quantized_blocks() -> None:
    parent = requests([replace(SEEDED, seed=3)], [[5, 7, 11, 13, 17, 19, 23]])[0]
    child = replace(parent, id="child", sampling=replace(SEEDED, seed=4))
    expected = [completions(config(kv_dtype="int8"), [one])[0] for one in (parent, child)]
    core = core_of(config(kv_dtype="int8", enable_prefix_cache=False))
    forked = completions(core, [parent, replace(child, fork_of=parent.id)])
    assert_same(forked, expected, abs=1e-3)
    assert core.stats().scheduler.counters.num_computed_tokens < 2 * (7 + 11)
