from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.serve.fakes import ByteRenderer, ByteTokenizer, FakeEngine
from weft.apps.client import HttpChatClient, LocalChatClient
from weft.core.errors import (
    ConfigError,
    ContextLengthError,
    QueueFullError,
    RequestError,
    ResourceError,
    UnsupportedError,
    WeftError,
)
from weft.serve.app import create_app
from weft.serve.limits import ServerConfig
from weft.serve.server import BackgroundServer
from weft.spec.request import FinishReason
from weft.spec.sampling import SamplingParams
from weft.spec.structured import (
    EBNF,
    AfterThoughts,
    Choice,
    JSONObject,
    JSONSchema,
    Regex,
    StructuredSpec,
)

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(reply="héllo")


@pytest.fixture
def url(engine: FakeEngine) -> Iterator[str]:
    config = ServerConfig(port=0, api_key="s3cret")
    app = create_app(
        engine, ByteTokenizer(), "tiny", config, max_context=64, renderer=ByteRenderer()
    )
    with BackgroundServer(app, config) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> HttpChatClient:
    return HttpChatClient(url, api_key="s3cret", timeout_s=20)


def test_models_are_listed(client: HttpChatClient):
    assert client.models() == ["tiny"]


def test_the_answer_is_the_same_whole_and_streamed(client: HttpChatClient):
    assert client.chat(MESSAGES) == "héllo"
    parts = list(client.stream(MESSAGES))
    assert "".join(parts) == "héllo"
    assert len(parts) == 5


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_with_v1(url: str, suffix: str):
    assert HttpChatClient(url + suffix, api_key="s3cret").chat(MESSAGES) == "héllo"


def test_sampling_reaches_the_engine(client: HttpChatClient, engine: FakeEngine):
    sampling = SamplingParams(temperature=0.0, max_tokens=9, stop=("x",), seed=4, logprobs=2)
    client.chat(MESSAGES, sampling)
    assert engine.requests[0].sampling == sampling


@pytest.mark.parametrize(
    "spec",
    [JSONSchema('{"type": "null"}'), JSONObject(), Regex("a+"), EBNF("start: /a/"), Choice(("a",))],
)
def test_a_structure_reaches_the_engine(
    client: HttpChatClient, engine: FakeEngine, spec: StructuredSpec
):
    client.chat(MESSAGES, SamplingParams(structured=spec))
    assert engine.requests[0].sampling.structured == spec


def test_a_structure_without_a_field_is_refused(client: HttpChatClient):
    spec = AfterThoughts(Regex("a"), "</think>")
    with pytest.raises(UnsupportedError):
        client.chat(MESSAGES, SamplingParams(structured=spec))


def test_closing_a_stream_ends_the_request(client: HttpChatClient, engine: FakeEngine):
    engine.reply, engine.pace_s = "x" * 1000, 0.001
    stream = client.stream(MESSAGES)
    next(stream)
    stream.close()
    ended = threading.Event()
    for _ in range(1000):
        if engine.aborted:
            break
        ended.wait(0.01)
    assert engine.aborted == [engine.requests[0].id]


def test_refusals_become_the_exceptions_of_the_library(client: HttpChatClient, engine: FakeEngine):
    with pytest.raises(RequestError, match="stop has 17"):
        client.chat(MESSAGES, _unchecked(stop=("x",) * 17))
    with pytest.raises(ContextLengthError, match="64 tokens"):
        client.chat([{"role": "user", "content": "a" * 100}])
    engine.refuse = QueueFullError("full", retry_after_s=7)
    with pytest.raises(QueueFullError) as caught:
        client.chat(MESSAGES)
    assert caught.value.retry_after_s == 7
    engine.refuse = ValueError("boom")
    with pytest.raises(WeftError, match="the server failed"):
        client.chat(MESSAGES)


def test_a_wrong_key_is_said(url: str):
    with pytest.raises(RequestError, match="API key"):
        HttpChatClient(url).chat(MESSAGES)


def test_a_failure_in_the_middle_of_a_stream_is_raised(client: HttpChatClient, engine: FakeEngine):
    engine.ending, engine.error = FinishReason.ERROR, "the sampler failed"
    stream = client.stream(MESSAGES)
    with pytest.raises(WeftError, match="the sampler failed"):
        list(stream)


def test_no_server_is_a_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ResourceError, match="weft serve") as caught:
        HttpChatClient(f"http://127.0.0.1:{port}", model="tiny").chat(MESSAGES)
    assert str(port) in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "did not answer with JSON"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 3\r\n\r\nbad", "status 502"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", "no answer from"),
        (b"nonsense\r\n\r\n", "no answer from"),
    ],
)
def test_what_is_no_such_server_is_a_clear_error(reply: bytes, message: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        client = HttpChatClient(f"http://127.0.0.1:{listener.getsockname()[1]}", model="tiny")
        with pytest.raises(WeftError, match=message):
            client.chat(MESSAGES)
        thread.join()


def test_a_silent_server_times_out():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ResourceError, match="silent"):
            HttpChatClient(url, model="tiny", timeout_s=0.05).chat(MESSAGES)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://"])
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(ConfigError, match="not a server address"):
        HttpChatClient(url)


def test_a_model_of_this_process_is_a_client_too():
    @dataclass
    class Reply:
        text: str

    class Echo:
        def chat(self, messages: list[dict[str, str]], sampling: SamplingParams) -> Reply:
            return Reply(messages[-1]["content"] * (sampling.max_tokens or 1))

    client = LocalChatClient(Echo())
    assert client.chat(MESSAGES, SamplingParams(max_tokens=2)) == "hihi"
    assert list(client.stream(MESSAGES)) == ["hi"]


def _unchecked(**fields: object) -> SamplingParams:
    sampling = SamplingParams()
    for name, value in fields.items():
        object.__setattr__(sampling, name, value)
    return sampling
