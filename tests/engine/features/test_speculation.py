"""Speculation with every other feature: tokens are those of serving without guesses.

The drafting model is the target itself, so guesses hold and all paths are taken, or a random tree
of which few do.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.engine.adapters.support import ROOM, adapted, adapter
from tests.engine.features.support import (
    GREEDY,
    PENALISED,
    SEEDED,
    assert_nothing_left,
    assert_same,
    completions,
    config,
    requests,
    step,
    tiny,
    tokenizer,
)
from weft.checkpoint.hf import save_model
from weft.core.errors import ConfigError, UnsupportedError
from weft.engine.core import EngineCore
from weft.engine.llm import LLM
from weft.engine.parallel import start
from weft.engine.parallel.config import ParallelConfig
from weft.engine.pause import pause, resume
from weft.engine.speculation.config import SpeculationConfig, TreeShape
from weft.engine.trees import paths_of
from weft.models.decoder import Decoder
from weft.sched.loop import VirtualClock
from weft.sched.tier_policy import TierConfig
from weft.spec.structured import Regex

CHAIN = SpeculationConfig("draft", 4)
TREE = SpeculationConfig("draft", 7, tree=TreeShape(3, 3))
LOOKUP = SpeculationConfig("suffix", 6, tree=TreeShape(2))
WAYS = pytest.mark.parametrize("speculation", [CHAIN, TREE, LOOKUP], ids=["chain", "tree", "text"])
MIXED = [GREEDY, SEEDED, PENALISED] * 2


def _core(speculation: SpeculationConfig, decoder: Decoder | None = None, **settings) -> EngineCore:
    decoder = decoder or tiny()
    drafter = decoder if speculation.kind == "draft" else None
    chosen = config(speculation=speculation, **settings)
    return EngineCore(decoder, tokenizer(), chosen, clock=VirtualClock(), drafter=drafter)


def _check(
    speculation: SpeculationConfig,
    params=MIXED,
    *,
    decoder: Decoder | None = None,
    abs: float = 1e-3,
    stagger: int = 0,
    **settings,
) -> EngineCore:
    plain = completions(config(**settings), requests(params), decoder=decoder)
    core = _core(speculation, decoder, **settings)
    assert_same(completions(core, requests(params), stagger=stagger), plain, abs=abs)
    assert core.runner.num_failed_proposals == 0
    stats = core.speculator.stats()
    assert stats.num_drafts > 0
    if speculation.kind == "draft":
        assert stats.num_accepted_tokens > 0
    return core


@WAYS
@pytest.mark.parametrize("stagger", [0, 2])
@pytest.mark.pair("speculation", "batching")
def test_batching(speculation, stagger):
    _check(speculation, stagger=stagger)


@WAYS
@pytest.mark.pair("speculation", "chunking")
def test_chunking(speculation):
    _check(speculation, max_tokens_per_step=9)


@WAYS
@pytest.mark.pair("speculation", "cache")
def test_a_warm_cache(speculation):
    core = _core(speculation)
    cold = completions(core, requests(MIXED))
    warm = completions(core, requests(MIXED))
    assert sum(done.num_cached_tokens for done in warm) > 0
    assert_same(warm, cold, abs=1e-3)
    assert_same(cold, completions(config(), requests(MIXED)), abs=1e-3)


@WAYS
@pytest.mark.pair("speculation", "preemption")
def test_preemption(speculation):
    params = [replace(one, max_tokens=30) for one in MIXED]
    core = _check(speculation, params, num_blocks=22)
    assert core.stats().scheduler.counters.num_preemptions > 0


@pytest.mark.parametrize("speculation", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.pair("speculation", "offload")
def test_offload(speculation):
    params = [replace(one, max_tokens=30) for one in MIXED]
    tiers = TierConfig(host_bytes=2**20, prefill_tokens_per_s=1.0)
    core = _check(speculation, params, num_blocks=22, tiers=tiers)
    assert core.stats().scheduler.tiers.counters.num_loaded_blocks > 0


@WAYS
@pytest.mark.pair("speculation", "grammar")
def test_grammars(speculation):
    pattern = Regex("[a-z]{3,9}( the)? [0-9]{2,4}")
    params = [replace(one, structured=pattern, ignore_eos=False) for one in MIXED]
    core = _core(speculation)
    plain = completions(config(), requests(params))
    propose, num_checked = core.speculator.propose, 0

    def checked(view):
        nonlocal num_checked
        drafts = propose(view)
        for id, draft in drafts.items():
            for path in paths_of(draft):
                tokens = [draft.tokens[guess] for guess in path]
                assert core.runner.table.grammars.count_valid(id, tokens) == len(tokens)
                num_checked += 1
        return drafts

    core.speculator.propose = checked
    assert_same(completions(core, requests(params)), plain, abs=1e-3)
    assert core.runner.num_failed_proposals == 0
    if speculation.kind != "draft":
        assert num_checked > 0


@pytest.mark.parametrize("speculation", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.pair("speculation", "deterministic")
def test_deterministic_mode_gives_the_same_bits(speculation):
    _check(speculation, deterministic=True, abs=0)


@pytest.mark.parametrize("kind", ["windows", "latent", "softcap", "sinks"])
@pytest.mark.parametrize("speculation", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.pair("speculation", "windows")
def test_kinds_of_attention(kind, speculation):
    _check(speculation, decoder=tiny(kind))


@pytest.mark.parametrize("kv_dtype", ["int8", "float8_e4m3"])
@pytest.mark.pair("speculation", "quantized_kv")
def test_a_quantized_cache(kv_dtype):
    _check(CHAIN, kv_dtype=kv_dtype)
    _check(TREE, kv_dtype=kv_dtype)


@WAYS
@pytest.mark.pair("speculation", "fork")
def test_samples_of_one_prompt(speculation):
    params = replace(SEEDED, max_tokens=20)
    prompt = [5, 7, 11, 13, 17, 19, 23]
    plain = LLM(tiny(), tokenizer(), config(), clock=VirtualClock())
    drafter = tiny() if speculation.kind == "draft" else None
    guessing = LLM(
        tiny(), tokenizer(), config(speculation=speculation), clock=VirtualClock(), drafter=drafter
    )
    got, expected = (llm.generate([prompt], params, num_samples=3) for llm in (guessing, plain))
    assert [one.tokens for one in got] == [one.tokens for one in expected]
    assert guessing.core.runner.num_failed_proposals == 0


@pytest.mark.pair("speculation", "pause")
def test_a_pause_that_gives_blocks_back():
    params = [replace(one, max_tokens=24) for one in MIXED]
    plain = completions(config(), requests(params))
    core = _core(CHAIN)
    streams = [core.submit(request) for request in requests(params)]
    for _ in range(3):
        step(core)
    pause(core, "retract")
    resume(core)
    while core.has_work:
        step(core)
    assert_same([stream.completion() for stream in streams], plain, abs=1e-3)
    assert_nothing_left(core)


ADAPTED = {"a": 1, "b": 2}


def _adapted_core(speculation, drafter=None):
    chosen = config(speculation=speculation, adapters=ROOM)
    core = EngineCore(tiny(), tokenizer(), chosen, clock=VirtualClock(), drafter=drafter)
    for name, seed in ADAPTED.items():
        core.adapters.load(name, adapter(seed))
    return core


@WAYS
@pytest.mark.pair("speculation", "adapters")
def test_guesses_are_made_without_the_adapter_and_verified_with_it(speculation):
    names = ("", "a", "b", "a", "", "b")
    wanted = [replace(one, adapter=name) for one, name in zip(requests(MIXED), names, strict=True)]
    core = _adapted_core(speculation, tiny() if speculation.kind == "draft" else None)
    plain = completions(_adapted_core(None), wanted)
    assert_same(completions(core, wanted, stagger=1), plain, abs=1e-3)
    stats = core.speculator.stats()
    assert stats.num_drafts > 0
    assert core.runner.num_failed_proposals == 0
    if speculation.kind == "draft":
        assert 0 < stats.num_accepted_tokens < stats.num_draft_tokens


@pytest.mark.parametrize("name", ["", "a", "b"])
@pytest.mark.pair("speculation", "adapters")
def test_who_drafts_with_the_numbers_of_an_adapter_guesses_its_answers(name):
    """What is verified is what a request's own adapter draws, so only guesses for "a" hold."""
    wanted = [replace(one, adapter=name) for one in requests([GREEDY, SEEDED] * 3)]
    core = _adapted_core(replace(CHAIN, switch=None), adapted(ADAPTED["a"]))
    plain = completions(_adapted_core(None), wanted)
    assert_same(completions(core, wanted), plain, abs=1e-3)
    stats = core.speculator.stats()
    if name == "a":
        assert stats.num_accepted_tokens == stats.num_draft_tokens > 20
    else:
        assert stats.num_accepted_tokens < stats.num_draft_tokens / 3


def test_aborting_in_any_step_leaves_nothing_behind():
    core = _core(CHAIN)
    for steps in range(6):
        for request in requests(MIXED):
            core.submit(replace(request, id=f"{request.id}-{steps}"))
        for _ in range(steps):
            step(core)
        for index in range(len(MIXED)):
            core.abort(f"{index}-{steps}")
        while core.has_work:
            step(core)
    assert_nothing_left(core)


def test_rejection_goes_with_everything_that_shapes_a_distribution():
    speculation = replace(CHAIN, acceptance="rejection")
    pattern = Regex("[a-z]{3,9} [0-9]{2,4}")
    params = [
        replace(SEEDED, structured=pattern),
        replace(PENALISED, bad_words=((5,),), max_tokens=20),
        replace(GREEDY, logprobs=2),
    ]
    core = _core(speculation)
    structured, penalised, greedy = completions(core, requests(params, [[5, 7], [11], [13, 17]]))
    assert structured.error is None
    assert len(penalised.tokens) == 20
    assert 5 not in penalised.tokens
    plain = completions(config(), requests([params[2]], [[13, 17]]))
    assert greedy.tokens == plain[0].tokens
    assert core.speculator.stats().num_accepted_tokens > 0


@pytest.mark.parametrize(
    ("settings", "kind", "reason"),
    [
        ({"overlap_depth": 1}, "dense", "next step is planned"),
        ({}, "gated-delta", "take back wrong guesses"),
        ({"enable_prefix_cache": False}, "ring", "write over blocks"),
    ],
)
@pytest.mark.pair("speculation", "overlap")
@pytest.mark.pair("speculation", "states")
def test_what_does_not_go_together_is_refused(settings, kind, reason):
    with pytest.raises((UnsupportedError, ConfigError), match=reason):
        _core(SpeculationConfig("ngram"), tiny(kind), **settings)


@pytest.mark.parametrize("split", ["tensor", "pipeline"])
@pytest.mark.pair("speculation", "tensor_parallel")
def test_several_processes_are_refused_before_any_is_started(split, tmp_path, monkeypatch):
    save_model(tiny(), tmp_path, tokenizer=tokenizer())
    started = []
    monkeypatch.setattr(start, "_start_locally", started.append)
    chosen = config(speculation=SpeculationConfig("ngram"), parallel=ParallelConfig(**{split: 2}))
    with pytest.raises(UnsupportedError, match="guesses are made on the first rank only") as caught:
        LLM.load(tmp_path, config=chosen)
    assert "speculation to none" in str(caught.value.fix)
    assert not started


def test_rejection_is_refused_where_tokens_must_not_depend_on_guesses():
    rejection = SpeculationConfig("ngram", acceptance="rejection")
    with pytest.raises(UnsupportedError, match="depends on when there were guesses"):
        _core(rejection, deterministic=True)
