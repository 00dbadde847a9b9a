"""Models with recurrent states share prefixes: a hit restores the exact state (rows G25, PM07)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.engine.features.support import (
    GREEDY,
    SEEDED,
    assert_same,
    completions,
    config,
    core_of,
    requests,
    step,
    tiny,
)
from tests.engine.support import assert_nothing_left, tokens_of
from tests.nn.recurrent.models import model_spec
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.outputs import Completion
from weft.models.decoder import Decoder
from weft.sched.snapshots import SnapshotConfig
from weft.spec.request import Request

# One of each kind of state, between layers of attention.
KINDS = ("mamba", "mamba2", "gated-delta", "kimi-delta", "rwkv", "gated-linear", "short-conv")
NONE = SnapshotConfig(num_slots=0)
EIGHT = SnapshotConfig(interval_tokens=8, num_slots=24)
PROMPT = tuple(range(30, 60))
# States are summed in another order when a prompt is cut elsewhere.
ROUNDING = 1e-4


def small(snapshots: SnapshotConfig = EIGHT, **settings: object) -> EngineConfig:
    return config(snapshots=snapshots, **settings)


def pure(kind: str) -> Decoder:
    """Return a model without a single key."""
    spec = replace(model_spec(kind, hybrid=False), vocab_size=300, context_length=128)
    built = Decoder(spec, seed=2).eval()
    for parameter in built.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(3.0)
    return built


def ask(core: EngineCore, *prompts: Sequence[int]) -> list[Completion]:
    return completions(core, requests(GREEDY, prompts))


@pytest.mark.pair("states", "cache")
@pytest.mark.parametrize("kind", KINDS)
def test_a_hit_restores_the_exact_state(kind: str):
    core = core_of(small(), tiny(kind))
    cold, warm = ask(core, PROMPT), ask(core, PROMPT)
    assert cold[0].num_cached_tokens == 0
    # Of 28 tokens in whole blocks, 24 end where a state was kept.
    assert warm[0].num_cached_tokens == 24
    # The chunks that are left are cut as they were, so every bit is equal.
    assert_same(warm, cold, abs=0)
    uncached = completions(small(NONE), requests(GREEDY, [PROMPT]), decoder=tiny(kind))
    assert_same(warm, uncached, abs=ROUNDING)


@pytest.mark.pair("states", "cache")
@pytest.mark.parametrize("kind", ["mamba2", "rwkv"])
def test_a_model_without_keys_has_a_prefix_cache_too(kind: str):
    decoder = pure(kind)
    core = core_of(small(), decoder)
    cold, warm = ask(core, PROMPT), ask(core, PROMPT)
    assert warm[0].num_cached_tokens == 24
    assert_same(warm, cold, abs=0)
    uncached = completions(small(NONE), requests(GREEDY, [PROMPT]), decoder=decoder)
    assert_same(warm, uncached, abs=ROUNDING)


@pytest.mark.pair("states", "cache")
@pytest.mark.parametrize("kind", ["gated-delta", "rwkv"])
def test_prompts_that_part_share_up_to_the_last_snapshot_before(kind: str):
    core = core_of(small(), tiny(kind))
    ask(core, PROMPT)
    prompts = [(*PROMPT[:21], 7, 8, 9), (*PROMPT[:11], 1, 2), PROMPT[:7] + (5,) * 9]
    got = ask(core, *prompts)
    assert [completion.num_cached_tokens for completion in got] == [16, 8, 0]
    expected = completions(small(NONE), requests(GREEDY, prompts), decoder=tiny(kind))
    assert_same(got, expected, abs=ROUNDING)


@pytest.mark.pair("states", "cache")
def test_outputs_are_snapshots_too():
    core = core_of(small(), tiny("mamba2"))
    (first,) = ask(core, PROMPT)
    (second,) = ask(core, (*PROMPT, *first.tokens, 9))
    assert second.num_cached_tokens == 40


@pytest.mark.pair("states", "chunking")
@pytest.mark.parametrize("max_tokens_per_step", [1, 3, 5, 13])
def test_chunk_size_changes_nothing(max_tokens_per_step: int):
    prompts = [PROMPT, (*PROMPT[:20], 3), PROMPT[:9] * 2]
    expected = completions(small(NONE), requests(SEEDED, prompts), decoder=tiny("gated-delta"))
    core = core_of(small(max_tokens_per_step=max_tokens_per_step), tiny("gated-delta"))
    for _ in range(2):
        assert_same(completions(core, requests(SEEDED, prompts)), expected, abs=ROUNDING)
    assert core.stats().scheduler.snapshots.num_restored >= 3


@pytest.mark.pair("states", "preemption")
@pytest.mark.parametrize("kind", KINDS)
def test_preempted_sequences_go_on_from_a_snapshot(kind: str):
    prompts = [[index + 1] * 13 for index in range(3)]
    core = core_of(small(num_blocks=16), tiny(kind))
    got = ask(core, *prompts)
    stats = core.stats().scheduler
    assert stats.counters.num_preemptions > 0
    assert stats.snapshots.num_restored > 0
    expected = completions(small(NONE), requests(GREEDY, prompts), decoder=tiny(kind))
    assert_same(got, expected, abs=ROUNDING)


@pytest.mark.pair("states", "overlap")
@pytest.mark.parametrize("kind", ["mamba2", "rwkv"])
def test_overlap_keeps_and_finds_the_same_snapshots(kind: str):
    prompts = [PROMPT, (*PROMPT[:20], 3), PROMPT[:9] * 2]
    expected = completions(small(NONE), requests(SEEDED, prompts), decoder=tiny(kind))
    core = core_of(small(overlap_depth=1, num_blocks=22), tiny(kind))
    for _ in range(2):
        got = completions(core, requests(SEEDED, prompts), stagger=1)
        assert_same(got, expected, abs=ROUNDING)
    assert core.stats().scheduler.snapshots.num_restored > 0


@pytest.mark.pair("states", "deterministic")
@pytest.mark.parametrize("kind", ["gated-delta", "rwkv"])
def test_deterministic_mode_is_equal_to_the_bit_from_a_snapshot(kind: str):
    core = core_of(small(deterministic=True), tiny(kind))
    cold, warm = ask(core, PROMPT), ask(core, PROMPT)
    assert warm[0].num_cached_tokens == 24
    assert_same(warm, cold, abs=0)


@pytest.mark.pair("states", "deterministic")
@pytest.mark.parametrize("kind", KINDS)
def test_padding_of_deterministic_mode_writes_what_is_right(kind: str):
    plain = completions(small(NONE), requests(GREEDY, [PROMPT]), decoder=tiny(kind))
    padded = small(NONE, deterministic=True)
    assert_same(
        completions(padded, requests(GREEDY, [PROMPT]), decoder=tiny(kind)), plain, abs=ROUNDING
    )


@pytest.mark.pair("states", "batching")
@pytest.mark.parametrize("num_slots", [1, 2, 5])
def test_few_snapshots_cost_hits_and_nothing_else(num_slots: int):
    prompts = [PROMPT[:18] + (index, index + 1) * 4 for index in range(6)]
    expected = completions(small(NONE), requests(GREEDY, prompts), decoder=tiny("kimi-delta"))
    few = SnapshotConfig(interval_tokens=8, num_slots=num_slots)
    core = core_of(small(few, max_num_sequences=4), tiny("kimi-delta"))
    for _ in range(3):
        assert_same(ask(core, *prompts), expected, abs=ROUNDING)
    assert len(core.scheduler.kv.snapshots.slots) <= num_slots


@pytest.mark.pair("states", "cache")
def test_new_weights_hide_old_snapshots():
    core = core_of(small(), tiny("mamba2"))
    ask(core, PROMPT)
    core.bump_weight_version()
    assert ask(core, PROMPT)[0].num_cached_tokens == 0
    assert ask(core, PROMPT)[0].num_cached_tokens == 24


@pytest.mark.pair("states", "cache")
def test_prefixes_are_not_shared_across_salts():
    core = core_of(small(), tiny("mamba2"))
    completions(core, requests(GREEDY, [PROMPT], cache_salt="a"))
    (other,) = completions(core, requests(GREEDY, [PROMPT], cache_salt="b"))
    (same,) = completions(core, requests(GREEDY, [PROMPT], cache_salt="a"))
    assert (other.num_cached_tokens, same.num_cached_tokens) == (0, 24)


@pytest.mark.pair("states", "cache")
def test_a_step_that_fails_leaves_no_snapshot():
    core = core_of(small(max_tokens_per_step=16), tiny("rwkv"))
    core.submit(Request("a", PROMPT, GREEDY))
    core.step()

    def broken(module, args):
        raise RuntimeError("broken")

    handle = core.model.register_forward_pre_hook(broken)
    core.step()
    handle.remove()
    assert core.last_failure is not None
    while core.has_work:
        step(core)
    assert_nothing_left(core)
    expected = completions(small(NONE), requests(GREEDY, [PROMPT]), decoder=tiny("rwkv"))
    (got,) = ask(core, PROMPT)
    assert got.num_cached_tokens == 8
    assert_same([got], expected)


@pytest.mark.pair("states", "cache")
def test_aborted_requests_leave_snapshots_that_can_be_used():
    core = core_of(small(max_tokens_per_step=16), tiny("gated-delta"))
    core.submit(Request("a", PROMPT, GREEDY))
    for _ in range(2):
        core.step()
    core.abort("a")
    expected = completions(small(NONE), requests(GREEDY, [PROMPT]), decoder=tiny("gated-delta"))
    (got,) = ask(core, PROMPT)
    assert got.num_cached_tokens == 16
    assert tokens_of([got]) == tokens_of(expected)
