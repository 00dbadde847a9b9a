"""The engine behind a thread: every way a request can end, and an engine that always answers."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
import time
from contextlib import asynccontextmanager

import pytest

from tests.engine.support import (
    GREEDY,
    assert_nothing_left,
    make_llm,
    make_prompts,
    model,
    tokenizer,
)
from weft.core.errors import ContextLengthError, QueueFullError, RequestError, ResourceError
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.spec import FinishReason, Request, SamplingParams

LONG = SamplingParams(temperature=0.0, max_tokens=110, ignore_eos=True)


@asynccontextmanager
async def running(**settings):
    config = EngineConfig(**({"num_blocks": 256, "block_size": 4} | settings))
    engine = AsyncEngine(model(), tokenizer(), config)
    try:
        yield engine
    finally:
        await engine.close()
        assert not engine._worker.thread.is_alive()


def request(id="a", tokens=(1, 2, 3), sampling=GREEDY, **fields):
    return Request(id=id, tokens=tuple(tokens), sampling=sampling, **fields)


async def collect(engine, wanted):
    return [delta async for delta in engine.generate(wanted)]


async def settled(engine):
    """Wait until the worker has nothing left to do."""
    for _ in range(2000):
        if engine.num_unfinished == 0 and not engine.core.has_work:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the engine did not come to rest")


class Gate:
    """Lets the engine's steps pass one by one."""

    def __init__(self, engine, monkeypatch):
        self.entered = threading.Event()
        self.release = threading.Event()
        original = engine.core.runner.execute

        def execute(plan):
            self.entered.set()
            assert self.release.wait(20)
            return original(plan)

        monkeypatch.setattr(engine.core.runner, "execute", execute)

    async def wait_entered(self):
        await asyncio.to_thread(self.entered.wait, 20)


def test_concurrent_requests_get_what_a_batch_of_prompts_gets():
    async def main():
        async with running() as engine:
            wanted = [request(str(i), prompt) for i, prompt in enumerate(make_prompts())]
            answers = await asyncio.gather(*(collect(engine, one) for one in wanted))
            await settled(engine)
            assert_nothing_left(engine.core)
            return answers

    expected = make_llm().generate(make_prompts(), GREEDY)
    for deltas, completion in zip(asyncio.run(main()), expected, strict=True):
        assert tuple(delta.token for delta in deltas) == completion.tokens
        assert "".join(delta.text for delta in deltas) == completion.text
        assert [d.finish_reason for d in deltas] == [None] * 11 + [FinishReason.LENGTH]
        assert deltas[-1].usage.num_completion_tokens == 12


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (request(tokens=()), RequestError),
        (request(tokens=(300,)), RequestError),
        (request(tokens=(1,) * 128), ContextLengthError),
        (request(sampling=SamplingParams(stop_token_ids=(400,))), RequestError),
    ],
)
def test_bad_request_is_refused_at_submit_and_the_engine_goes_on(wanted, error):
    async def main():
        async with running() as engine:
            with pytest.raises(error):
                await engine.submit(wanted)
            assert len(await collect(engine, request())) == 12
            assert engine.healthy

    asyncio.run(main())


def test_full_queue_is_refused(monkeypatch):
    async def main():
        async with running(max_waiting=1, max_num_sequences=1) as engine:
            gate = Gate(engine, monkeypatch)
            streams = [await engine.submit(request("a"))]
            await gate.wait_entered()
            accepted = asyncio.ensure_future(engine.submit(request("b")))
            refused = asyncio.ensure_future(engine.submit(request("c")))
            gate.release.set()
            streams.append(await accepted)
            with pytest.raises(QueueFullError):
                await refused
            for stream in streams:
                assert len([delta async for delta in stream]) == 12

    asyncio.run(main())


def test_id_in_use_is_refused_without_harm_to_its_owner(monkeypatch):
    async def main():
        async with running() as engine:
            gate = Gate(engine, monkeypatch)
            stream = await engine.submit(request("a"))
            await gate.wait_entered()
            second = asyncio.ensure_future(engine.submit(request("a")))
            gate.release.set()
            with pytest.raises(RequestError, match="in use"):
                await second
            assert len([delta async for delta in stream]) == 12

    asyncio.run(main())


class TestAbort:
    """A request can be ended in every state; the others do not notice and nothing leaks."""

    def test_while_running(self):
        async def main():
            async with running() as engine:
                other = asyncio.ensure_future(collect(engine, request("b")))
                stream = await engine.submit(request("a", sampling=LONG))
                async for _ in stream:
                    engine.abort("a")
                    break
                rest = [delta async for delta in stream]
                assert rest[-1].finish_reason is FinishReason.ABORT
                assert rest[-1].usage.num_completion_tokens < 110
                assert len(await other) == 12
                await settled(engine)
                assert_nothing_left(engine.core)

        asyncio.run(main())

    def test_while_waiting_and_during_a_step(self, monkeypatch):
        async def main():
            async with running(max_num_sequences=1) as engine:
                gate = Gate(engine, monkeypatch)
                first = await engine.submit(request("a", sampling=LONG))
                await gate.wait_entered()
                waiting = asyncio.ensure_future(engine.submit(request("b")))
                await asyncio.sleep(0)
                engine.abort("b")
                engine.abort("a", FinishReason.TIMEOUT)
                gate.release.set()
                assert [d.finish_reason async for d in await waiting] == [FinishReason.ABORT]
                deltas = [delta async for delta in first]
                assert deltas[-1].finish_reason is FinishReason.TIMEOUT
                await settled(engine)
                assert_nothing_left(engine.core)

        asyncio.run(main())

    def test_while_a_long_prompt_is_chunked(self):
        async def main():
            async with running(max_tokens_per_step=2, max_num_sequences=2) as engine:
                stream = await engine.submit(request("a", tokens=range(1, 100), sampling=LONG))
                engine.abort("a")
                assert [d.finish_reason async for d in stream] == [FinishReason.ABORT]
                await settled(engine)
                assert_nothing_left(engine.core)

        asyncio.run(main())

    def test_after_preemption(self):
        async def main():
            async with running(num_blocks=28) as engine:
                ids = [str(index) for index in range(6)]
                streams = [await engine.submit(request(i, (1, 2), sampling=LONG)) for i in ids]
                while engine.core.scheduler.stats().counters.num_preemptions == 0:
                    await asyncio.sleep(0.002)
                for id in ids:
                    engine.abort(id)
                reasons = {[d async for d in stream][-1].finish_reason for stream in streams}
                assert FinishReason.ABORT in reasons
                await settled(engine)
                assert_nothing_left(engine.core)

        asyncio.run(main())

    def test_twice_after_the_end_and_of_nobody(self):
        async def main():
            async with running() as engine:
                assert len(await collect(engine, request("a"))) == 12
                for id in ("a", "a", "nobody"):
                    engine.abort(id)
                assert len(await collect(engine, request("a"))) == 12
                assert engine.healthy

        asyncio.run(main())


@pytest.mark.parametrize("way", ["cancel", "close", "leave", "drop"])
def test_consumer_that_goes_away_aborts_its_request(way):
    async def main():
        async with running() as engine:
            stream = await engine.submit(request("a", sampling=LONG))
            if way == "cancel":
                task = asyncio.ensure_future(_read(stream))
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            elif way == "close":
                await stream.aclose()
                assert [delta async for delta in stream] == []
            elif way == "leave":
                async with stream:
                    await anext(stream)
            del stream
            gc.collect()
            await settled(engine)
            assert_nothing_left(engine.core)
            finished = engine.core.stats().scheduler.counters.num_finished
            assert finished[FinishReason.ABORT] == 1

    async def _read(stream):
        async for _ in stream:
            await asyncio.sleep(0.001)

    asyncio.run(main())


def test_cancelled_submission_leaves_nothing(monkeypatch):
    async def main():
        async with running() as engine:
            gate = Gate(engine, monkeypatch)
            first = await engine.submit(request("a"))
            await gate.wait_entered()
            task = asyncio.ensure_future(engine.submit(request("b", sampling=LONG)))
            await asyncio.sleep(0)
            task.cancel()
            gate.release.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len([delta async for delta in first]) == 12
            await settled(engine)
            assert_nothing_left(engine.core)

    asyncio.run(main())


def test_stop_text_ends_the_request_and_frees_it():
    async def main():
        async with running() as engine:
            plain = "".join(d.text for d in await collect(engine, request(sampling=LONG)))
            stop = plain[20:23]
            wanted = request("b", sampling=dataclasses.replace(LONG, stop=(stop,)))
            deltas = await collect(engine, wanted)
            assert "".join(d.text for d in deltas) == plain[: plain.index(stop)]
            assert deltas[-1].finish_reason is FinishReason.STOP
            assert deltas[-1].usage.num_completion_tokens < 110
            await settled(engine)
            assert_nothing_left(engine.core)

    asyncio.run(main())


def test_deadline_ends_with_timeout():
    async def main():
        async with running() as engine:
            now_s = engine.core.clock.now()
            wanted = request("a", sampling=LONG, arrival_s=now_s, deadline_s=now_s)
            assert [d.finish_reason for d in await collect(engine, wanted)] == [
                FinishReason.TIMEOUT
            ]

    asyncio.run(main())


def test_failing_step_fails_its_requests_and_the_engine_recovers(monkeypatch):
    async def main():
        async with running() as engine:
            with monkeypatch.context() as patch:
                patch.setattr(engine.core.runner, "execute", _explode)
                for attempt in range(3):
                    assert engine.healthy
                    deltas = await collect(engine, request(str(attempt)))
                    assert deltas[-1].finish_reason is FinishReason.ERROR
                    assert "ZeroDivisionError: kernel" in deltas[-1].error
                assert not engine.healthy
                assert isinstance(engine.failure, ZeroDivisionError)
            assert len(await collect(engine, request())) == 12
            assert engine.healthy

    asyncio.run(main())


def _explode(*args):
    raise ZeroDivisionError("kernel")


def test_text_that_cannot_be_made_fails_only_its_request(monkeypatch):
    async def main():
        async with running() as engine:
            other = asyncio.ensure_future(collect(engine, request("b")))
            broken = await engine.submit(request("a", sampling=LONG))
            monkeypatch.setattr(
                engine.core._streams["a"], "_detokenizer", type("Bad", (), {"push": _explode})()
            )
            deltas = [delta async for delta in broken]
            assert deltas[-1].finish_reason is FinishReason.ERROR
            assert "making text failed: ZeroDivisionError" in deltas[-1].error
            assert len(await other) == 12
            await settled(engine)
            assert_nothing_left(engine.core)

    asyncio.run(main())


def test_dead_worker_is_unhealthy_and_answers_everyone(monkeypatch):
    async def main():
        async with running() as engine:
            stream = await engine.submit(request("a", sampling=LONG))
            await anext(stream)
            monkeypatch.setattr(engine.core.scheduler, "schedule", _explode)
            deltas = [delta async for delta in stream]
            assert deltas[-1].finish_reason is FinishReason.ERROR
            assert "the engine died" in deltas[-1].error
            await asyncio.to_thread(engine._worker.thread.join, 20)
            assert not engine.healthy
            with pytest.raises(ResourceError, match="has died: ZeroDivisionError"):
                await engine.submit(request("b"))
            assert (await engine.stats()).weight_version == 0

    asyncio.run(main())


def test_stuck_step_is_unhealthy_until_it_ends(monkeypatch):
    async def main():
        async with running(stall_timeout_s=0.05) as engine:
            gate = Gate(engine, monkeypatch)
            stream = await engine.submit(request())
            await gate.wait_entered()
            while engine.healthy:
                await asyncio.sleep(0.01)
            gate.release.set()
            assert len([delta async for delta in stream]) == 12

    asyncio.run(main())


def test_idle_engine_keeps_its_heartbeat():
    async def main():
        async with running(stall_timeout_s=5.0) as engine:
            before_s = engine._worker.heartbeat_s
            deadline_s = time.monotonic() + 20
            while engine._worker.heartbeat_s == before_s and time.monotonic() < deadline_s:
                await asyncio.sleep(0.05)
            assert engine._worker.heartbeat_s > before_s
            assert engine.healthy

    asyncio.run(main())


def test_drain_refuses_new_requests_and_finishes_the_old():
    async def main():
        async with running() as engine:
            task = asyncio.ensure_future(collect(engine, request("a", sampling=LONG)))
            while engine.num_unfinished == 0:
                await asyncio.sleep(0.001)
            drained = asyncio.ensure_future(engine.drain(30))
            while not engine.draining:
                await asyncio.sleep(0)
            with pytest.raises(ResourceError, match="shutting down"):
                await engine.submit(request("b"))
            assert await drained
            assert len(await task) == 110

    asyncio.run(main())


def test_drain_gives_up_after_its_time(monkeypatch):
    async def main():
        async with running() as engine:
            gate = Gate(engine, monkeypatch)
            stream = await engine.submit(request("a", sampling=LONG))
            assert not await engine.drain(0.02)
            gate.release.set()
            await stream.aclose()

    asyncio.run(main())


def test_close_aborts_what_is_left_and_can_be_repeated():
    async def main():
        async with running() as engine:
            stream = await engine.submit(request("a", sampling=LONG))
            await engine.close()
            deltas = [delta async for delta in stream]
            assert deltas[-1].finish_reason is FinishReason.ABORT
            await engine.close()
            assert not engine.healthy

    asyncio.run(main())


def test_new_weights_are_taken_between_steps():
    async def main():
        async with running() as engine:
            prompt = tuple(range(1, 40))
            await collect(engine, request("a", prompt))
            warm = await collect(engine, request("b", prompt))
            assert warm[-1].usage.num_cached_tokens > 0
            assert await engine.bump_weight_version() == 1
            cold = await collect(engine, request("c", prompt))
            assert cold[-1].usage.num_cached_tokens == 0
            assert {delta.weight_version for delta in cold} == {1}
            stats = await engine.stats()
            assert stats.weight_version == 1
            assert await engine.run_between_steps(lambda: threading.current_thread().name) == (
                "weft-engine"
            )

    asyncio.run(main())


def test_closed_event_loop_of_a_consumer_does_not_stop_the_engine():
    engine = AsyncEngine(model(), tokenizer(), EngineConfig(num_blocks=256, block_size=4))

    async def leave():
        return await engine.submit(request("a", sampling=LONG))

    stream = asyncio.run(leave())

    async def go_on():
        deltas = await collect(engine, request("b"))
        await settled(engine)
        return deltas

    assert len(asyncio.run(go_on())) == 12
    del stream
    assert engine.healthy
    assert_nothing_left(engine.core)
    engine.shutdown()
