"""Grammars are compiled beside the engine: nobody else waits, and every ending cleans up."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest

from tests.engine.support import assert_nothing_left
from tests.engine.test_async_engine import collect, request, running, settled
from weft.core.errors import RequestError
from weft.spec import FinishReason, Regex, SamplingParams

STRUCTURED = SamplingParams(structured=Regex("[a-c]{4,6}"), max_tokens=10, seed=1)


class SlowCompiler:
    """Holds up every compilation until it is released."""

    def __init__(self, engine, monkeypatch):
        self.entered, self.release = threading.Event(), threading.Event()
        self.threads: set[int | None] = set()
        original = engine.core.grammars.start

        def start(spec):
            self.threads.add(threading.get_ident())
            self.entered.set()
            assert self.release.wait(20)
            return original(spec)

        monkeypatch.setattr(engine.core.grammars, "start", start)


def test_others_are_served_while_a_grammar_compiles(monkeypatch):
    async def main():
        async with running() as engine:
            slow = SlowCompiler(engine, monkeypatch)
            waiting = asyncio.ensure_future(collect(engine, request("s", sampling=STRUCTURED)))
            await asyncio.to_thread(slow.entered.wait, 20)
            assert len(await collect(engine, request("free"))) == 12
            assert not waiting.done()
            slow.release.set()
            deltas = await waiting
            assert slow.threads.isdisjoint({threading.get_ident(), engine._worker.thread.ident})
            assert re.fullmatch("[a-c]{4,6}", "".join(delta.text for delta in deltas))
            assert deltas[-1].finish_reason is FinishReason.STOP

    asyncio.run(main())


def test_many_samples_compile_one_grammar():
    async def main():
        async with running() as engine:
            wanted = [request(str(i), sampling=STRUCTURED, sequence=i) for i in range(8)]
            answers = await asyncio.gather(*(collect(engine, one) for one in wanted))
            assert engine.core.grammars.num_compiled == 1
            texts = ["".join(delta.text for delta in deltas) for deltas in answers]
            assert all(re.fullmatch("[a-c]{4,6}", text) for text in texts)
            assert len(set(texts)) > 1

    asyncio.run(main())


def test_a_wrong_structure_is_refused_and_the_engine_goes_on():
    async def main():
        async with running() as engine:
            with pytest.raises(RequestError) as caught:
                await engine.submit(request(sampling=SamplingParams(structured=Regex("("))))
            assert caught.value.param == "structured"
            assert len(await collect(engine, request())) == 12
            assert engine.healthy

    asyncio.run(main())


def test_leaving_while_the_grammar_compiles_or_the_request_runs_leaves_nothing(monkeypatch):
    async def main():
        async with running() as engine:
            slow = SlowCompiler(engine, monkeypatch)
            left = asyncio.ensure_future(engine.submit(request("a", sampling=STRUCTURED)))
            await asyncio.to_thread(slow.entered.wait, 20)
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
            slow.release.set()
            async with await engine.submit(request("b", sampling=STRUCTURED)) as stream:
                await anext(stream)
            await settled(engine)
            assert_nothing_left(engine.core)
            assert len(engine.core.runner.table.grammars) == 0

    asyncio.run(main())
