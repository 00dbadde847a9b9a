"""Beam search over HTTP: n results of width n, as vLLM has it; nothing that shapes draws."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from tests.engine.support import make_llm, model, tokenizer
from weft.core.errors import ConfigError, ResourceError
from weft.engine.async_engine import AsyncEngine
from weft.engine.beam import BeamParams
from weft.engine.config import EngineConfig
from weft.serve.limits import ServerConfig
from weft.serve.local import create_engine_app
from weft.serve.server import BackgroundServer

SIZES = EngineConfig(num_blocks=128, block_size=4, max_num_sequences=32)
PROMPTS = ["to weave is to cross", "the quick brown fox"]


@pytest.fixture
def engine() -> Iterator[AsyncEngine]:
    engine = AsyncEngine(model(), tokenizer(), SIZES)
    yield engine
    engine.shutdown()


@pytest.fixture
def client(engine: AsyncEngine) -> Iterator[httpx.Client]:
    config = ServerConfig(port=0)
    with BackgroundServer(create_engine_app(engine, tokenizer(), "tiny", config), config) as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield client


def test_completions_are_the_results_of_a_search(client: httpx.Client):
    body = {"prompt": PROMPTS, "n": 3, "max_tokens": 6, "use_beam_search": True}
    answer = client.post("/v1/completions", json={**body, "length_penalty": 0.5}).json()
    expected = make_llm().beam_search(PROMPTS, BeamParams(3, 6, 0.5))
    results = [result for of_prompt in expected for result in of_prompt]
    assert [choice["text"] for choice in answer["choices"]] == [
        tokenizer().decode(result.tokens) for result in results
    ]
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert {choice["finish_reason"] for choice in answer["choices"]} <= {"stop", "length"}
    num_tokens = sum(len(result.tokens) for result in results)
    assert answer["usage"]["completion_tokens"] == num_tokens


def test_chats_too(client: httpx.Client):
    body = {"messages": [{"role": "user", "content": "hi"}], "n": 2, "max_tokens": 5}
    answer = client.post("/v1/chat/completions", json={**body, "use_beam_search": True}).json()
    assert len(answer["choices"]) == 2
    prompt = make_llm().render("hi")
    expected = make_llm().beam_search([prompt], BeamParams(2, 5))[0]
    assert [choice["message"]["content"] for choice in answer["choices"]] == [
        tokenizer().decode(result.tokens) for result in expected
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream": True}, "stream"),
        ({"logprobs": 1}, "logprobs"),
        ({"stop": "a"}, "stop"),
        ({"guided_regex": "a"}, "guided_regex"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
    ],
)
def test_what_shapes_draws_is_refused_by_name(client: httpx.Client, fields, param):
    body = {"prompt": "a", "n": 2, "use_beam_search": True, **fields}
    answer = client.post("/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_beam_that_is_too_wide_is_refused(client: httpx.Client):
    body = {"prompt": "a", "n": 50, "use_beam_search": True}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert "use a width of at most" in answer.json()["error"]["message"]


def test_a_cancelled_search_leaves_nothing(engine: AsyncEngine):
    async def scenario():
        await engine.pause("in_place")
        search = asyncio.create_task(engine.beam_search([1, 2, 3], BeamParams(2, 50)))
        while engine.num_unfinished == 0:
            await asyncio.sleep(0)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
        await engine.resume()
        assert await engine.drain(10)
        return await engine.stats()

    stats = asyncio.run(scenario())
    assert (stats.scheduler.num_running, stats.scheduler.num_waiting) == (0, 0)


def test_an_engine_that_ends_says_so(engine: AsyncEngine):
    async def scenario():
        await engine.pause("in_place")
        search = asyncio.create_task(engine.beam_search([1, 2, 3], BeamParams(2, 5)))
        while engine.num_unfinished == 0:
            await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(ResourceError, match="the engine has ended"):
            await search

    asyncio.run(scenario())


def test_an_async_engine_refuses_like_the_other(engine: AsyncEngine):
    with pytest.raises(ConfigError, match="at most"):
        asyncio.run(engine.beam_search([1], BeamParams(11)))
