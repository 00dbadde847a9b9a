"""Paused engines compute nothing; what happens to requests is what the mode says."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
import torch

from tests.engine.support import GREEDY, assert_nothing_left, make_llm, model, tokenizer, tokens_of
from tests.engine.test_weights import make_model
from weft.core.errors import ConfigError, ResourceError
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.engine.pause import pause, resume
from weft.spec.request import FinishReason, Request

PROMPT = list(range(20, 50))
LONG = dataclasses.replace(GREEDY, max_tokens=20)
SEEDED = dataclasses.replace(LONG, temperature=0.8, seed=5)


def start(llm: LLM, num_steps: int, params=LONG):
    """Submit two requests and run some steps."""
    core = llm.core
    requests = [Request(f"r{i}", tuple(PROMPT[i:]), params) for i in range(2)]
    streams = [core.submit(request) for request in requests]
    for _ in range(num_steps):
        core.step()
    return streams


def run_out(llm: LLM) -> None:
    while llm.core.has_work:
        llm.core.step()


def expected(params=LONG, **config):
    return tokens_of(make_llm(**config).generate([PROMPT, PROMPT[1:]], params))


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("mode", ["retract", "in_place"])
@pytest.mark.parametrize("params", [LONG, SEEDED], ids=["greedy", "seeded"])
@pytest.mark.parametrize("num_steps", [0, 1, 7])
def test_requests_go_on_after_a_pause_as_if_there_had_been_none(mode, params, num_steps, depth):
    llm = make_llm(overlap_depth=depth)
    streams = start(llm, num_steps, params)
    llm.pause(mode)
    news = llm.core.step()
    assert all(delta.finish_reason is None for delta in news)
    assert not llm.core.has_work
    num_computed = llm.stats().scheduler.counters.num_computed_tokens
    assert llm.core.step() == []
    assert llm.stats().scheduler.counters.num_computed_tokens == num_computed
    assert (llm.stats().scheduler.num_used_blocks == 0) == (mode == "retract" or num_steps == 0)
    llm.resume()
    run_out(llm)
    assert [stream.completion().tokens for stream in streams] == expected(params)
    assert_nothing_left(llm.core)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("num_steps", [0, 1, 7])
def test_aborted_requests_end_with_their_tokens_so_far(num_steps, depth):
    llm = make_llm(overlap_depth=depth)
    streams = start(llm, num_steps)
    llm.pause("abort")
    news = llm.core.step()
    assert [delta.request_id for delta in news if delta.finish_reason] == ["r0", "r1"]
    for stream, tokens in zip(streams, expected(), strict=True):
        got = stream.completion()
        assert got.finish_reason is FinishReason.ABORT
        assert got.tokens == tokens[: len(got.tokens)]
    llm.resume()
    run_out(llm)
    assert_nothing_left(llm.core)


def test_in_place_keeps_old_keys_and_retract_computes_them_with_the_new_weights():
    """A weight update in the middle: retracted requests are as if they had begun with it."""
    results = {}
    for mode in ("in_place", "retract"):
        llm = make_llm(decoder=make_model(2))
        stream, _ = start(llm, 6)
        llm.pause(mode)
        llm.weights.update(make_model(1).state_dict())
        llm.resume()
        run_out(llm)
        results[mode] = stream.completion()
    drawn = results["retract"].weight_versions.index(1)
    prefix = results["retract"].tokens[:drawn]
    assert prefix == results["in_place"].tokens[:drawn]
    fresh = make_llm(decoder=make_model(1)).generate(
        [[*PROMPT, *prefix]], dataclasses.replace(LONG, max_tokens=20 - drawn)
    )[0]
    assert results["retract"].tokens[drawn:] == fresh.tokens
    assert results["retract"].logprobs[drawn:] == pytest.approx(fresh.logprobs, abs=1e-5)
    assert results["in_place"].logprobs[drawn:] != pytest.approx(fresh.logprobs, abs=1e-3)


def test_a_paused_engine_says_so_to_callers_that_would_wait_for_ever():
    llm = make_llm()
    llm.pause()
    with pytest.raises(ResourceError, match="the engine is paused"):
        llm.generate([PROMPT], GREEDY)
    with pytest.raises(ResourceError, match="the engine is paused"):
        next(llm.stream(PROMPT, GREEDY))
    llm.resume()
    llm.resume()
    assert len(llm.generate([PROMPT], GREEDY)[0].tokens) == GREEDY.max_tokens


def test_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'retract'"):
        make_llm().pause("retrackt")


def test_pausing_can_go_further():
    llm = make_llm()
    start(llm, 3)
    for mode, used in (("in_place", True), ("retract", False), ("abort", False)):
        llm.pause(mode)
        assert (llm.stats().scheduler.num_used_blocks > 0) == used
    assert llm.core.num_unfinished == 0


def test_flushed_prefixes_are_computed_again():
    llm = make_llm()
    first = llm.generate([PROMPT], GREEDY)
    streams = start(llm, 3)
    llm.flush_prefixes()
    assert llm.stats().scheduler.num_cached_blocks == 0
    run_out(llm)
    assert streams[0].completion().tokens == expected()[0]
    llm.flush_prefixes()
    again = llm.generate([PROMPT], GREEDY)
    assert (tokens_of(again), again[0].num_cached_tokens) == (tokens_of(first), 0)
    assert_nothing_left(llm.core)


async def collect(engine: AsyncEngine, request: Request):
    return [delta async for delta in engine.generate(request)]


def test_a_server_queues_while_paused_and_goes_on():
    engine = AsyncEngine(model(), tokenizer(), EngineConfig(num_blocks=64, block_size=4))

    async def scenario():
        running = asyncio.create_task(collect(engine, Request("a", tuple(PROMPT), LONG)))
        await asyncio.sleep(0)
        await engine.pause("retract")
        assert engine.state == "paused"
        assert engine.healthy
        stream = await engine.submit(Request("b", tuple(PROMPT), LONG))
        stats = await engine.stats()
        assert stats.scheduler.num_running == 0
        assert stats.scheduler.num_waiting >= 1
        await engine.resume()
        return await running, [delta async for delta in stream]

    try:
        for deltas in asyncio.run(scenario()):
            tokens = tuple(delta.token for delta in deltas if delta.token is not None)
            assert tokens == expected()[0]
    finally:
        engine.shutdown()


def test_a_server_ends_requests_that_a_pause_aborts():
    engine = AsyncEngine(model(), tokenizer(), EngineConfig(num_blocks=64, block_size=4))

    async def scenario():
        await engine.pause("in_place")
        stream = await engine.submit(Request("a", tuple(PROMPT), LONG))
        await engine.pause("abort")
        deltas = [delta async for delta in stream]
        await engine.resume()
        return deltas, await collect(engine, Request("b", tuple(PROMPT), LONG))

    try:
        aborted, served = asyncio.run(scenario())
        assert [delta.finish_reason for delta in aborted] == [FinishReason.ABORT]
        assert served[-1].finish_reason is FinishReason.LENGTH
    finally:
        engine.shutdown()


@pytest.mark.pair("pause", "cache")
@pytest.mark.parametrize("cached", [True, False])
def test_many_pauses_in_a_row_change_nothing(cached):
    generator = torch.Generator().manual_seed(0)
    llm = make_llm(enable_prefix_cache=cached)
    streams = start(llm, 0, SEEDED)
    modes = ["retract", "in_place", "resume"]
    for choice in torch.randint(0, 3, (60,), generator=generator).tolist():
        pause(llm.core, modes[choice]) if choice < 2 else resume(llm.core)
        llm.core.step()
        llm.core.scheduler.check()
    resume(llm.core)
    run_out(llm)
    assert [stream.completion().tokens for stream in streams] == expected(SEEDED)
    assert_nothing_left(llm.core)
