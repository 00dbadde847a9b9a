"""What the server needs of an engine and a tokenizer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from weft.spec.request import FinishReason, Request


class Delta(Protocol):
    """What one engine step adds to one request.

    Attributes:
        text: New text that is safe to show (whole characters, no part of a stop text).
        token: The new token, if one was drawn.
        logprob: Its log-probability under the distribution it was drawn from.
        top: The likeliest alternatives as (token, log-probability), if asked for.
        finish_reason: Set on the last delta only.
        num_cached_tokens: Prompt tokens whose keys and values came from the prefix cache.
        error: What failed, when the finish reason is ERROR.
    """

    @property
    def text(self) -> str: ...
    @property
    def token(self) -> int | None: ...
    @property
    def logprob(self) -> float | None: ...
    @property
    def top(self) -> Sequence[tuple[int, float]]: ...
    @property
    def finish_reason(self) -> FinishReason | None: ...
    @property
    def num_cached_tokens(self) -> int: ...
    @property
    def error(self) -> str | None: ...


class Stats(Protocol):
    """Gauges of now and counters since the start."""

    @property
    def num_running(self) -> int: ...
    @property
    def num_waiting(self) -> int: ...
    @property
    def kv_usage(self) -> float: ...
    @property
    def num_prefix_queries(self) -> int: ...
    @property
    def num_prefix_hits(self) -> int: ...
    @property
    def num_preemptions(self) -> int: ...


class Engine(Protocol):
    """An engine that runs requests concurrently."""

    @property
    def healthy(self) -> bool: ...
    @property
    def max_context(self) -> int: ...

    def submit(self, request: Request) -> AsyncIterator[Delta]:
        """Queue a request and return its deltas.

        Raises:
            RequestError: it can never run, or too many are waiting.
        """
        ...

    def abort(self, request_id: str) -> None:
        """End a request; unknown and finished ids are ignored."""
        ...

    def stats(self) -> Stats: ...


class ChatTemplate(Protocol):
    """Renders messages as the text the model was trained on."""

    def render(self, messages: Sequence[Any], *, add_generation_prompt: bool = False) -> str: ...


class Tokenizer(Protocol):
    """The part of ``weft.text.tokenizer.Tokenizer`` that serving uses."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def chat_template(self) -> Any: ...

    def encode(self, text: str, *, special: bool = False) -> list[int]: ...

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str: ...

    def token_bytes(self, id: int) -> bytes: ...
