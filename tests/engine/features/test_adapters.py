"""Requests with different adapters in one batch get what each gets in an engine of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.adapters.support import ROOM, adapted, adapter
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
from weft.core.errors import UnsupportedError
from weft.engine.adapters.config import AdapterConfig
from weft.engine.core import EngineCore
from weft.engine.outputs import Completion
from weft.engine.parallel.config import ParallelConfig
from weft.spec.request import Request
from weft.spec.structured import Regex

SEEDS = {"a": 1, "b": 2, "c": 3}
NAMES = ("a", "b", "", "c", "a", "")


def engine(kind: str = "dense", names: Sequence[str] = tuple(SEEDS), **settings: Any) -> EngineCore:
    settings = {"adapters": ROOM, "deterministic": True} | settings
    core = core_of(config(**settings), tiny(kind))
    for name in names:
        core.adapters.load(name, adapter(SEEDS[name], kind))
    return core


def mixed(sampling: Any = GREEDY, names: Sequence[str] = NAMES) -> list[Request]:
    wanted = requests(sampling)
    return [replace(request, adapter=name) for request, name in zip(wanted, names, strict=True)]


def each_alone(wanted: Sequence[Request], kind: str = "dense", **settings: Any) -> list[Completion]:
    """Serve each request in an engine that has its adapter only."""
    return [
        completions(
            engine(kind, [name] if (name := request.adapter) else [], **settings), [request]
        )[0]
        for request in wanted
    ]


@pytest.mark.pair("adapters", "batching")
@pytest.mark.pair("adapters", "deterministic")
def test_a_mixed_batch_gives_the_bits_each_adapter_gives_alone() -> None:
    wanted = mixed([GREEDY, SEEDED, PENALISED] * 2)
    got = completions(engine(), wanted)
    assert_same(got, each_alone(wanted), abs=0)
    assert len({completion.tokens for completion in got}) == len(got)


@pytest.mark.pair("adapters", "batching")
@pytest.mark.parametrize("kind", ["dense", "windows", "ring", "softcap", "sinks"])
def test_an_adapter_gives_what_the_model_with_its_pairs_gives(kind: str) -> None:
    wanted = mixed()
    settings = {"enable_prefix_cache": kind != "ring"}
    got = completions(engine(kind, deterministic=False, **settings), wanted)
    for request, completion in zip(wanted, got, strict=True):
        decoder = adapted(SEEDS[request.adapter], kind) if request.adapter else tiny(kind)
        plain = replace(request, adapter="")
        expected = completions(config(**settings), [plain], decoder=decoder)
        assert_same([completion], expected, abs=2e-4)


@pytest.mark.pair("adapters", "chunking")
def test_chunked_prompts_keep_the_bits() -> None:
    wanted = mixed()
    expected = completions(engine(), wanted)
    got = completions(engine(max_tokens_per_step=8, long_prefill_threshold=3), wanted)
    assert_same(got, expected, abs=0)


@pytest.mark.pair("adapters", "cache")
def test_a_prefix_is_found_under_its_own_adapter_only() -> None:
    prompt = [list(range(5, 29))]
    core = engine()
    fresh = {}
    for name in ("a", "b", ""):
        request = mixed(GREEDY, NAMES)[0]
        request = replace(request, tokens=tuple(prompt[0]), adapter=name)
        (fresh[name],) = completions(core, [request])
        assert fresh[name].num_cached_tokens == 0, name
        (again,) = completions(core, [request])
        assert again.num_cached_tokens > 0
        assert_same([again], [fresh[name]], abs=0)
    assert len({completion.tokens for completion in fresh.values()}) == 3


@pytest.mark.pair("adapters", "cache")
def test_a_name_that_is_loaded_again_never_meets_its_old_prefixes() -> None:
    core = engine()
    request = replace(requests(prompts=[list(range(5, 29))])[0], adapter="a")
    completions(core, [request])
    core.adapters.unload("a")
    core.adapters.load("a", adapter(SEEDS["b"]))
    (got,) = completions(core, [request])
    assert got.num_cached_tokens == 0
    assert_same([got], completions(core, [replace(request, adapter="b")]), abs=0)


@pytest.mark.pair("adapters", "preemption")
def test_preempted_sequences_keep_their_adapter() -> None:
    wanted = mixed()
    core = engine(num_blocks=14, max_context=48)
    got = completions(core, wanted)
    assert core.stats().scheduler.counters.num_preemptions > 0
    assert_same(got, completions(engine(), wanted), abs=0)


@pytest.mark.pair("adapters", "overlap")
def test_overlapping_steps_give_the_same_bits() -> None:
    wanted = mixed([GREEDY, SEEDED, PENALISED] * 2)
    got = completions(engine(overlap_depth=1), wanted, stagger=2)
    assert_same(got, completions(engine(), wanted), abs=0)


@pytest.mark.pair("adapters", "states")
def test_models_with_states_take_adapters() -> None:
    targets = ("*.mixer.out", "*.ffn.gate_up", "*.ffn.down")
    wanted = mixed(names=("a", "b", "", "a", "b", ""))
    core = core_of(config(adapters=ROOM, enable_prefix_cache=False), tiny("gated-delta"))
    for name in ("a", "b"):
        core.adapters.load(name, adapter(SEEDS[name], "gated-delta", targets=targets))
    got = completions(core, wanted)
    for request, completion in zip(wanted, got, strict=True):
        decoder = tiny("gated-delta")
        if request.adapter:
            decoder = adapted(SEEDS[request.adapter], "gated-delta", targets=targets)
        plain = replace(request, adapter="")
        expected = completions(config(enable_prefix_cache=False), [plain], decoder=decoder)
        assert_same([completion], expected, abs=2e-4)


@pytest.mark.pair("adapters", "fork")
@pytest.mark.parametrize("cached", [True, False])
def test_a_fork_with_another_adapter_shares_nothing(cached: bool) -> None:
    parent = replace(requests(prompts=[list(range(5, 24))])[0], adapter="a")
    children = [
        replace(parent, id=f"fork-{name}", adapter=name, fork_of=parent.id)
        for name in ("a", "b", "")
    ]
    wanted = [parent, *children]
    core = engine(enable_prefix_cache=cached)
    got = completions(core, wanted)
    assert_same(got, each_alone([replace(one, fork_of=None) for one in wanted]), abs=0)
    assert len({completion.tokens for completion in got}) == 3
    # Of 19 tokens the fork of the same adapter has computed the last one only.
    computed = core.stats().scheduler.counters.num_computed_tokens
    assert computed == 3 * 19 + 1 + 4 * (GREEDY.max_tokens - 1)


@pytest.mark.pair("adapters", "quantized_kv")
def test_quantized_keys_and_values_keep_the_bits() -> None:
    wanted = mixed()
    got = completions(engine(kv_dtype="int8"), wanted)
    assert_same(got, each_alone(wanted, kv_dtype="int8"), abs=0)


@pytest.mark.pair("adapters", "grammar")
def test_a_grammar_holds_for_requests_with_adapters() -> None:
    sampling = replace(GREEDY, structured=Regex("[ab]{4}"), ignore_eos=False)
    got = completions(engine(), mixed(sampling))
    assert all(set(completion.text) <= set("ab") for completion in got)
    assert all(len(completion.text) == 4 for completion in got)


@pytest.mark.parametrize("max_loaded", [1, 2])
@pytest.mark.parametrize("kind", ["dense", "gated-delta"])
def test_more_adapters_than_slots_are_computed_in_passes(kind: str, max_loaded: int) -> None:
    targets = ("*.mixer.out", "*.ffn.gate_up", "*.ffn.down")
    found = []
    for slots in (4, max_loaded):
        room = AdapterConfig(max_loaded=slots, max_rank=4)
        chosen = config(adapters=room, deterministic=True, enable_prefix_cache=False)
        core = core_of(chosen, tiny(kind))
        for name, seed in SEEDS.items():
            core.adapters.load(name, adapter(seed, kind, targets=targets))
        found.append(completions(core, mixed()))
    assert_same(found[1], found[0], abs=0 if kind == "dense" else 1e-4)


@pytest.mark.pair("adapters", "tensor_parallel")
def test_ranks_and_adapters_are_refused_together() -> None:
    with pytest.raises(UnsupportedError, match="adapters and tensor_parallel"):
        core_of(config(adapters=ROOM, parallel=ParallelConfig(tensor=2)))
