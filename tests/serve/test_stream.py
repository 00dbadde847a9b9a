from __future__ import annotations

import asyncio
import json

import pytest

from tests.serve.conftest import BuildApp, Post
from tests.serve.fakes import FakeEngine
from weft.core.errors import RequestError
from weft.serve.sse import EventStream, event
from weft.spec.request import FinishReason

CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


def events_of(response) -> list[dict]:
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_chat_stream_begins_with_the_role_and_ends_with_the_reason(call: Post):
    chunks = events_of(call("/v1/chat/completions", CHAT))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(choice["delta"]["content"] for choice in choices[1:-1]) == "hello"
    assert all(choice["finish_reason"] is None for choice in choices[:-1])
    assert choices[-1]["delta"] == {}
    assert choices[-1]["finish_reason"] == "stop"
    assert all("usage" not in chunk for chunk in chunks)


def test_a_completion_stream_has_the_text_and_one_reason(call: Post):
    chunks = events_of(call("/v1/completions", {"prompt": "a", "stream": True}))
    choices = [chunk["choices"][0] for chunk in chunks]
    assert "".join(choice["text"] for choice in choices) == "hello"
    assert [choice["finish_reason"] for choice in choices][-1] == "stop"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_usage_comes_in_a_last_chunk_without_choices(call: Post, path: str):
    body = {"prompt": "a"} if path == "/v1/completions" else CHAT
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = events_of(call(path, body | options))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_characters_are_never_split_and_silent_tokens_send_nothing(call: Post, engine: FakeEngine):
    engine.reply = "aé€"
    chunks = events_of(call("/v1/chat/completions", CHAT))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == [
        "",
        "a",
        "é",
        "€",
        None,
    ]


def test_streamed_choices_are_told_apart_by_index(call: Post):
    chunks = events_of(call("/v1/completions", {"prompt": "a", "n": 3, "stream": True}))
    texts = ["", "", ""]
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == ["hello"] * 3


def test_streamed_and_whole_logprobs_are_the_same(call: Post):
    body = {"prompt": "a", "logprobs": 2}
    whole = call("/v1/completions", body).json()["choices"][0]["logprobs"]
    assert whole["tokens"] == list("hello")
    assert whole["token_logprobs"] == [-0.5, -1.5, -2.5, -3.5, -4.5]
    assert whole["text_offset"] == [0, 1, 2, 3, 4]
    assert whole["top_logprobs"][0] == {"A": -1.0, "B": -2.0, "h": -0.5}
    joined: dict[str, list] = {key: [] for key in whole}
    for chunk in events_of(call("/v1/completions", body | {"stream": True})):
        for key, values in chunk["choices"][0]["logprobs"].items():
            joined[key] += values
    assert joined == whole


def test_chat_logprobs_carry_bytes_and_alternatives(call: Post, engine: FakeEngine):
    engine.reply = "é"
    body = CHAT | {"stream": False, "logprobs": True, "top_logprobs": 1}
    content = call("/v1/chat/completions", body).json()["choices"][0]["logprobs"]["content"]
    assert [entry["bytes"] for entry in content] == [[0xC3], [0xA9]]
    assert content[0]["top_logprobs"] == [{"token": "A", "logprob": -1.0, "bytes": [65]}]
    streamed = []
    for chunk in events_of(call("/v1/chat/completions", body | {"stream": True})):
        streamed += (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    assert streamed == content


def test_a_failure_in_a_stream_is_an_event(call: Post, engine: FakeEngine):
    engine.ending, engine.error = FinishReason.ERROR, "the sampler failed"
    chunks = events_of(call("/v1/chat/completions", CHAT))
    assert "the sampler failed" in chunks[-1]["error"]["message"]
    assert "choices" not in chunks[-1]


class Wire:
    """An ASGI connection whose client leaves after ``num_parts`` body parts."""

    def __init__(self, body: bytes, num_parts: int) -> None:
        self._body = body
        self._left = asyncio.Event()
        self._num_parts = num_parts
        self.sent: list[dict] = []
        if num_parts == 0:
            self._left.set()

    async def receive(self) -> dict:
        if self._body:
            body, self._body = self._body, b""
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict) -> None:
        self.sent.append(message)
        if sum(part["type"] == "http.response.body" for part in self.sent) >= self._num_parts:
            self._left.set()


def scope(path: str) -> dict:
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": headers,
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
    }


@pytest.mark.parametrize("num_parts", [0, 1, 3])
def test_a_client_that_leaves_a_stream_ends_it_in_the_engine(
    build_app: BuildApp, engine: FakeEngine, num_parts: int
):
    engine.reply, engine.pace_s = "x" * 10_000, 0.001
    wire = Wire(json.dumps(CHAT | {"n": 2}).encode(), num_parts)
    asyncio.run(build_app()(scope("/v1/chat/completions"), wire.receive, wire.send))
    assert len(engine.requests) == 2
    assert sorted(engine.aborted) == sorted(request.id for request in engine.requests)
    assert len(wire.sent) < 100


def test_a_client_that_leaves_a_whole_answer_ends_it_in_the_engine(
    build_app: BuildApp, engine: FakeEngine
):
    engine.pace_s = None
    body = json.dumps(CHAT | {"stream": False}).encode()
    wire = Wire(body, 0)
    asyncio.run(build_app()(scope("/v1/chat/completions"), wire.receive, wire.send))
    assert engine.aborted == [engine.requests[0].id]


def test_a_finished_request_is_not_aborted(call: Post, engine: FakeEngine):
    call("/v1/chat/completions", CHAT)
    call("/v1/completions", {"prompt": "a"})
    assert engine.aborted == []


def test_when_one_of_several_is_refused_the_others_are_aborted(
    build_app: BuildApp, engine: FakeEngine
):
    submit, count = engine.submit, 0

    async def refuse_second(request):
        nonlocal count
        count += 1
        if count == 2:
            raise RequestError("no room")
        return await submit(request)

    engine.submit = refuse_second
    assert Post(build_app())("/v1/completions", {"prompt": "a", "n": 3}).status_code == 400
    assert {request.id for request in engine.requests} <= set(engine.aborted)
    assert engine.running == set()


def test_silence_is_filled_with_comments():
    async def slow():
        await asyncio.sleep(0.05)
        yield event({"a": 1})

    closed: list[bool] = []
    wire = Wire(b"", 10_000)
    response = EventStream(slow(), on_close=lambda: closed.append(True), ping_interval_s=0.01)
    asyncio.run(response({}, wire.receive, wire.send))
    bodies = [part["body"] for part in wire.sent if part["type"] == "http.response.body"]
    assert b": ping\n\n" in bodies
    assert bodies[-2:] == [b'data: {"a":1}\n\n', b""]
    assert closed == [True]
