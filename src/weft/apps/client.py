"""Talking to a model: one protocol, over HTTP with the standard library or in this process."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol
from urllib.parse import urlsplit

from weft.core.errors import (
    ConfigError,
    ContextLengthError,
    QueueFullError,
    RequestError,
    ResourceError,
    UnsupportedError,
    WeftError,
)
from weft.spec.sampling import SamplingParams
from weft.spec.structured import (
    EBNF,
    Choice,
    JSONObject,
    JSONSchema,
    Regex,
    StructuredSpec,
)

Message = Mapping[str, str]
DEFAULT_SAMPLING = SamplingParams()


class ChatClient(Protocol):
    """Answers conversations: lists of ``{"role": ..., "content": ...}``."""

    def chat(
        self, messages: Sequence[Message], sampling: SamplingParams = DEFAULT_SAMPLING
    ) -> str: ...

    def stream(
        self, messages: Sequence[Message], sampling: SamplingParams = DEFAULT_SAMPLING
    ) -> Iterator[str]: ...


class HasText(Protocol):
    """An answer with its text."""

    @property
    def text(self) -> str: ...


class ChatModel(Protocol):
    """A model in this process, such as ``weft.engine.llm.LLM``."""

    def chat(self, messages: list[dict[str, str]], sampling: SamplingParams) -> HasText: ...


class LocalChatClient:
    """A chat client over a model of this process."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    def chat(self, messages: Sequence[Message], sampling: SamplingParams = DEFAULT_SAMPLING) -> str:
        """Return the whole answer."""
        return self._model.chat([dict(message) for message in messages], sampling).text

    def stream(
        self, messages: Sequence[Message], sampling: SamplingParams = DEFAULT_SAMPLING
    ) -> Iterator[str]:
        """Yield the answer; in one piece, since the model answers whole."""
        yield self.chat(messages, sampling)


class HttpChatClient:
    """A chat client over any server that speaks OpenAI's protocol.

    Args:
        base_url: With or without ``/v1``, such as ``http://127.0.0.1:8000``.
        model: Name of the model; none asks the server for the first one it has.
        api_key: Sent as a bearer token.
        timeout_s: For connecting and for every wait between two pieces of an answer.

    Raises:
        ConfigError: the URL is not an http or https address.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{base_url!r} is not a server address", fix="write http://HOST:PORT")
        self._parts = parts
        self._path = parts.path.rstrip("/").removesuffix("/v1") + "/v1"
        self._model = model
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def models(self) -> list[str]:
        """Return the names of the models the server has."""
        with self._exchange("GET", "/models", None) as response:
            return [model["id"] for model in _json(response.read())["data"]]

    def chat(self, messages: Sequence[Message], sampling: SamplingParams = DEFAULT_SAMPLING) -> str:
        """Return the whole answer.

        Raises:
            RequestError: the server refused; ``ContextLengthError`` and ``QueueFullError`` too.
            ResourceError: no server answers.
            WeftError: the server failed.
        """
        body = self._body(messages, sampling)
        with self._exchange("POST", "/chat/completions", body) as response:
            return _json(response.read())["choices"][0]["message"]["content"] or ""

    def stream(
        self, messages: Sequence[Message], sampling: SamplingParams = DEFAULT_SAMPLING
    ) -> Iterator[str]:
        """Yield pieces of the answer as they come; closing the iterator ends the request.

        Raises:
            RequestError, ResourceError, WeftError: as for ``chat``.
        """
        body = self._body(messages, sampling) | {"stream": True}
        with self._exchange("POST", "/chat/completions", body) as response:
            for data in _events(response):
                chunk = _json(data)
                if "error" in chunk:
                    raise WeftError(chunk["error"]["message"])
                for choice in chunk["choices"]:
                    text = choice["delta"].get("content")
                    if text:
                        yield text

    def _body(self, messages: Sequence[Message], sampling: SamplingParams) -> dict[str, Any]:
        if self._model is None:
            self._model = self.models()[0]
        turns = [dict(message) for message in messages]
        return {"model": self._model, "messages": turns, **_sampling_fields(sampling)}

    @contextlib.contextmanager
    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Iterator[http.client.HTTPResponse]:
        data = None if body is None else json.dumps(body).encode()
        connection = self._connection()
        try:
            with self._transport_errors():
                connection.request(method, self._path + path, data, self._headers)
                response = connection.getresponse()
            with response, self._transport_errors():
                if response.status >= 400:
                    raise _error(
                        response.status, response.getheader("Retry-After"), response.read()
                    )
                yield response
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=context)

    @contextlib.contextmanager
    def _transport_errors(self) -> Iterator[None]:
        where = f"{self._parts.scheme}://{self._parts.netloc}"
        try:
            yield
        except TimeoutError as error:
            raise ResourceError(
                f"{where} was silent for {self._timeout_s:g} s", fix="raise timeout_s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ResourceError(
                f"no answer from {where}: {error or type(error).__name__}",
                fix="start one with 'weft serve', or check the address",
            ) from error


def _sampling_fields(sampling: SamplingParams) -> dict[str, Any]:
    """Return only what differs from the defaults, so that other servers see no unknown field."""
    body = {
        field.name: getattr(sampling, field.name)
        for field in fields(sampling)
        if getattr(sampling, field.name) != field.default
    }
    if sampling.structured is not None:
        del body["structured"]
        body |= _structured_fields(sampling.structured)
    if sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in body.items()}


def _structured_fields(spec: StructuredSpec) -> dict[str, Any]:
    """Return OpenAI's field for JSON, which most servers know, and vLLM's for the rest."""
    match spec:
        case JSONSchema():
            schema = {"name": "answer", "schema": json.loads(spec.schema), "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case JSONObject():
            return {"response_format": {"type": "json_object"}}
        case Regex():
            return {"structured_outputs": {"regex": spec.pattern}}
        case EBNF():
            return {"structured_outputs": {"grammar": spec.grammar}}
        case Choice():
            return {"structured_outputs": {"choice": list(spec.options)}}
        case _:
            raise UnsupportedError(
                "a server's API has no field for this structure",
                fix="use JSONSchema, Regex, EBNF or Choice",
            )


def _events(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the data of server-sent events up to [DONE].

    Raises:
        WeftError: the stream ended early.
    """
    for line in response:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield data
    raise WeftError("the server's answer ended early", fix="look into the server's log")


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise WeftError(f"the server did not answer with JSON: {data[:80]!r}") from error
    if not isinstance(value, dict):
        raise WeftError(f"the server did not answer with a JSON object: {data[:80]!r}")
    return value


def _error(status: int, retry_after: str | None, data: bytes) -> WeftError:
    """Return the exception that stands for an error body."""
    try:
        error = json.loads(data)["error"]
        message, code, param = error["message"], error.get("code"), error.get("param")
    except (ValueError, TypeError, KeyError, AttributeError):
        message, code, param = f"status {status}: {data[:200]!r}", None, None
    if status == 429:
        wait_s = int(retry_after) if retry_after and retry_after.isdigit() else 1
        return QueueFullError(message, retry_after_s=wait_s)
    if code == "context_length_exceeded":
        return ContextLengthError(message, param=param)
    if status < 500:
        return RequestError(message, param=param)
    return WeftError(message)
