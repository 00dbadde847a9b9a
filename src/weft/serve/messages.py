"""Messages and tools of a conversation, as clients send them and as chat templates take them."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import model_validator

from weft.core.errors import RequestError
from weft.serve.body import Body


class TextPart(Body):
    """One part of a message given in parts; text is the only kind."""

    type: Literal["text"]
    text: str


class FunctionCallBody(Body):
    """The function of a tool call in the history; its arguments are a JSON object as text."""

    name: str
    arguments: str


class ToolCallBody(Body):
    """A tool call in the history."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCallBody

    def plain(self) -> dict[str, Any]:
        """Return the call as chat templates take it: with the arguments as an object."""
        try:
            arguments = json.loads(self.function.arguments or "{}")
        except json.JSONDecodeError as error:
            raise RequestError(
                f"the arguments of {self.function.name!r} are not JSON: {error}",
                fix="send the arguments as the server returned them",
                param="messages",
            ) from error
        function = {"name": self.function.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


class MessageBody(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallBody] = []
    tool_call_id: str | None = None
    name: str | None = None
    # What an answer of this server has and a client may send back unread.
    refusal: None = None

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise RequestError(
                f"a message of the {self.role} has no content",
                fix="send a text, which may be empty",
                param="messages",
            )
        return self

    def plain(self) -> dict[str, Any]:
        """Return the message as the chat template takes it."""
        text = self.content or ""
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": text if isinstance(text, str) else _join(text),
        }
        for name in ("reasoning_content", "tool_call_id", "name"):
            if (value := getattr(self, name)) is not None:
                message[name] = value
        if self.tool_calls:
            message["tool_calls"] = [call.plain() for call in self.tool_calls]
        return message


class FunctionBody(Body):
    """A function the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = {}
    strict: bool = False


class ToolBody(Body):
    """A tool the model may call."""

    type: Literal["function"]
    function: FunctionBody


def _join(parts: list[TextPart]) -> str:
    return "\n".join(part.text for part in parts)
