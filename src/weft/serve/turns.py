"""An assistant's turn: thoughts, text and tool calls, told apart as they come."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from weft.serve.backend import Delta
from weft.spec.request import FinishReason
from weft.text.parsers.reasoning import ReasoningParser
from weft.text.parsers.tool_bodies import ToolCall
from weft.text.parsers.tools import ToolParser


@dataclass(frozen=True)
class TurnFormat:
    """How a model writes its turns.

    Attributes:
        reasoning: Whether it thinks between tags first.
        tools: Name of the format of its tool calls; none if it makes none.
    """

    reasoning: bool = False
    tools: str | None = None


class TurnPart(NamedTuple):
    """What a delta adds to a turn.

    Attributes:
        reasoning: To the thoughts.
        content: To the text.
        calls: Tool calls that are now complete.
    """

    reasoning: str = ""
    content: str = ""
    calls: tuple[ToolCall, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.reasoning or self.content or self.calls)


@dataclass
class Turn:
    """One choice's turn so far.

    Attributes:
        reasoning: Tells thoughts from the rest; none where a model does not think.
        tools: Tells calls from text; none where the request gave no tools.
        max_calls: Calls beyond it are dropped (``parallel_tool_calls: false`` means one).
    """

    reasoning: ReasoningParser | None = None
    tools: ToolParser | None = None
    max_calls: int | None = None
    num_calls: int = field(default=0, init=False)

    def push(self, delta: Delta) -> TurnPart:
        """Take in a delta; with the last one comes what was held back."""
        part = self._read(delta.text)
        return part if delta.finish_reason is None else _join(part, self._flush())

    def read(self, text: str) -> TurnPart:
        """Take in a whole turn."""
        return _join(self._read(text), self._flush())

    def finish_reason(self, reason: FinishReason | None) -> str | None:
        """Return OpenAI's reason, which names tool calls."""
        return "tool_calls" if reason is FinishReason.STOP and self.num_calls else reason

    def _read(self, text: str) -> TurnPart:
        if self.reasoning is None:
            return self._split("", text)
        return self._split(*self.reasoning.push(text))

    def _flush(self) -> TurnPart:
        part = TurnPart()
        if self.reasoning is not None:
            part = self._split(*self.reasoning.flush())
        if self.tools is not None:
            content, calls = self.tools.flush()
            part = _join(part, TurnPart("", content, self._counted(calls)))
        return part

    def _split(self, reasoning: str, text: str) -> TurnPart:
        if self.tools is None:
            return TurnPart(reasoning, text)
        content, calls = self.tools.push(text)
        return TurnPart(reasoning, content, self._counted(calls))

    def _counted(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        room = len(calls) if self.max_calls is None else self.max_calls - self.num_calls
        kept = calls[: max(room, 0)]
        self.num_calls += len(kept)
        return kept


def message_of(part: TurnPart) -> dict[str, Any]:
    """Return the assistant's message of a whole turn."""
    content = part.content.rstrip() if part.calls else part.content
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if part.calls and not content else content,
        "refusal": None,
    }
    if part.reasoning:
        message["reasoning_content"] = part.reasoning
    if part.calls:
        message["tool_calls"] = tool_calls(part.calls, streamed_from=None)
    return message


def chunk_of(part: TurnPart, num_calls_before: int) -> dict[str, Any]:
    """Return the ``delta`` of a stream's chunk."""
    delta: dict[str, Any] = {}
    if part.reasoning:
        delta["reasoning_content"] = part.reasoning
    if part.content or part.is_empty:
        delta["content"] = part.content
    if part.calls:
        delta["tool_calls"] = tool_calls(part.calls, streamed_from=num_calls_before)
    return delta


def tool_calls(calls: tuple[ToolCall, ...], *, streamed_from: int | None) -> list[dict[str, Any]]:
    """Return OpenAI's list of calls; in a stream each has its index."""
    return [
        {
            **({} if streamed_from is None else {"index": streamed_from + offset}),
            "id": f"call_{uuid.uuid4().hex}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for offset, call in enumerate(calls)
    ]


def _join(first: TurnPart, second: TurnPart) -> TurnPart:
    return TurnPart(
        first.reasoning + second.reasoning,
        first.content + second.content,
        first.calls + second.calls,
    )
