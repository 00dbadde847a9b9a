"""Round trips of the official client against a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest

from tests.serve.conftest import BuildApp
from tests.serve.fakes import FakeEngine
from weft.core.errors import ContextLengthError, QueueFullError
from weft.serve.limits import ServerConfig
from weft.serve.server import BackgroundServer

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def url(build_app: BuildApp) -> Iterator[str]:
    config = ServerConfig(port=0, api_key="s3cret", max_body_bytes=10_000)
    with BackgroundServer(build_app(config), config) as server:
        yield f"{server.url}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="s3cret", max_retries=0) as client:
        yield client


def test_models(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_chat(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        temperature=0,
        max_completion_tokens=4,
        logprobs=True,
        top_logprobs=2,
    )
    assert answer.choices[0].message.content == "hell"
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].logprobs.content[0].top_logprobs[1].token == "B"
    assert answer.usage.completion_tokens == 4
    assert answer._request_id == answer.id


def test_chat_stream(client: openai.OpenAI, engine: FakeEngine):
    engine.num_cached_tokens = 6
    with client.chat.completions.create(
        model="tiny", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == "hello"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 6


def test_completion(client: openai.OpenAI):
    answer = client.completions.create(model="tiny", prompt=["a", "b"], n=2, logprobs=1)
    assert [choice.text for choice in answer.choices] == ["hello"] * 4
    assert answer.choices[0].logprobs.tokens == list("hello")


def test_completion_stream(client: openai.OpenAI):
    with client.completions.create(model="tiny", prompt="a", stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "hello"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_vllms_extras_pass_through_extra_body(client: openai.OpenAI, engine: FakeEngine):
    extras = {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.2, "ignore_eos": True}
    client.chat.completions.create(model="tiny", messages=MESSAGES, extra_body=extras)
    sampling = engine.requests[0].sampling
    assert {name: getattr(sampling, name) for name in extras} == extras


def test_errors_become_the_clients_own(client: openai.OpenAI, engine: FakeEngine, url: str):
    def complete(**options: object) -> None:
        client.completions.create(**{"model": "tiny", "prompt": "a", **options})

    with pytest.raises(openai.BadRequestError, match="top_p") as caught:
        complete(top_p=3)
    assert caught.value.param == "top_p"
    with pytest.raises(openai.BadRequestError, match="did you mean 'temperature'"):
        complete(extra_body={"temperatur": 1})
    with pytest.raises(openai.NotFoundError, match="'tiny'"):
        complete(model="other")
    with pytest.raises(openai.APIStatusError) as caught_size:
        complete(prompt="a" * 10_000)
    assert caught_size.value.status_code == 413
    engine.refuse = ContextLengthError("the prompt has 9 tokens, the context 8", param="prompt")
    with pytest.raises(openai.BadRequestError) as caught_length:
        complete()
    assert caught_length.value.code == "context_length_exceeded"
    engine.refuse = QueueFullError("full", retry_after_s=2)
    with pytest.raises(openai.RateLimitError) as caught_rate:
        complete()
    assert caught_rate.value.response.headers["retry-after"] == "2"
    engine.refuse, engine.healthy = None, False
    with pytest.raises(openai.InternalServerError):
        complete()
    with openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


def test_a_client_that_closes_its_stream_aborts_the_request(
    client: openai.OpenAI, engine: FakeEngine
):
    engine.reply, engine.pace_s = "x" * 10_000, 0.001
    with client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True) as stream:
        next(iter(stream))
    asyncio.run(_until(lambda: engine.aborted == [engine.requests[0].id]))


def test_many_async_streams_at_once(url: str, engine: FakeEngine):
    async def read(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
        async with stream:
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def read_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="s3cret", max_retries=0) as client:
            models = [model.id async for model in client.models.list()]
            whole = await client.completions.create(model="tiny", prompt="a")
            texts = await asyncio.gather(*(read(client) for _ in range(20)))
            return [*models, whole.choices[0].text, *texts]

    engine.pace_s = 0.001
    assert asyncio.run(read_all()) == ["tiny", "hello", *["hello"] * 20]
    assert engine.aborted == []


async def _until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
