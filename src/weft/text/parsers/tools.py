"""Tool calls in a stream, in the formats of the model families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from weft.core.errors import ConfigError, did_you_mean
from weft.text.parsers.tags import TagSplitter
from weft.text.parsers.tool_bodies import (
    ToolCall,
    deepseek_calls,
    json_calls,
    named_calls,
    xml_calls,
)


@dataclass(frozen=True)
class ToolFormat:
    """How a family writes tool calls.

    Attributes:
        opening: What begins a call; empty where a whole answer is either text or calls.
        closing: What ends it; empty where it goes on to the end of the answer.
        read: Reads what stands between them; none if it is no call.
        markers: What its chat templates contain.
        wrapper: Tags around a group of calls, to be dropped.
        written: What stands before and behind the arguments of a call, as the templates write it,
            with NAME for the name in JSON or BARE_NAME for the name as it is.
        separator: Between two calls.
        group: What stands before the first and behind the last call.
        field: What stands before (with NAME) and behind each argument, where they are written one
            by one; none where they are one JSON object.
        special: Its tags are special tokens, which a text has to show for calls to be found.
    """

    opening: str
    closing: str
    read: Callable[[str], list[ToolCall] | None]
    markers: tuple[str, ...]
    written: tuple[str, str]
    wrapper: tuple[str, ...] = ()
    separator: str = ""
    group: tuple[str, str] = ("", "")
    field: tuple[str, str] | None = None
    special: bool = False

    @property
    def trigger(self) -> str:
        """The text that nothing but calls begins with; empty where there is none."""
        before = self.group[0]
        return self.opening if before.startswith(self.opening) else before or self.opening


_DEEPSEEK_GROUP = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
# In the order in which a template is searched: the more special first.
FORMATS: dict[str, ToolFormat] = {
    "qwen_xml": ToolFormat(
        "<tool_call>",
        "</tool_call>",
        xml_calls,
        ("<function=",),
        written=("<tool_call>\n<function=BARE_NAME>\n", "</function>\n</tool_call>"),
        separator="\n",
        field=("<parameter=NAME>\n", "\n</parameter>\n"),
    ),
    "hermes": ToolFormat(
        "<tool_call>",
        "</tool_call>",
        json_calls,
        ("<tool_call>",),
        written=('<tool_call>\n{"name": NAME, "arguments": ', "}\n</tool_call>"),
        separator="\n",
    ),
    "deepseek": ToolFormat(
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        deepseek_calls,
        ("<｜tool▁call▁begin｜>", "```json"),
        written=(
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>BARE_NAME\n```json\n",
            "\n```<｜tool▁call▁end｜>",
        ),
        wrapper=_DEEPSEEK_GROUP,
        separator="\n",
        group=_DEEPSEEK_GROUP,
    ),
    "deepseek_v31": ToolFormat(
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        deepseek_calls,
        ("<｜tool▁call▁begin｜>",),
        written=("<｜tool▁call▁begin｜>BARE_NAME<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
        wrapper=_DEEPSEEK_GROUP,
        group=_DEEPSEEK_GROUP,
    ),
    "mistral": ToolFormat(
        "[TOOL_CALLS]",
        "",
        named_calls,
        ("[TOOL_CALLS]",),
        written=('{"name": NAME, "arguments": ', "}"),
        separator=", ",
        group=("[TOOL_CALLS][", "]"),
        special=True,
    ),
    "llama": ToolFormat(
        "",
        "",
        json_calls,
        ("<|python_tag|>",),
        wrapper=("<|python_tag|>",),
        written=('{"name": NAME, "parameters": ', "}"),
        separator="; ",
    ),
}


class Turn(NamedTuple):
    """What a piece of text adds to a turn.

    Attributes:
        content: To its text.
        calls: Tool calls that are now complete.
    """

    content: str = ""
    calls: tuple[ToolCall, ...] = ()


class ToolParser:
    """Tell tool calls from text.

    What stands between the tags and is no call is given back as text, tags included: nothing a
    model says is lost.

    >>> parser = ToolParser("hermes")
    >>> parser.push('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>').calls
    (ToolCall(name='add', arguments='{"a": 1}'),)
    """

    def __init__(self, name: str, schemas: Mapping[str, Any] | None = None) -> None:
        """Raise ``ConfigError`` for a format there is not.

        ``schemas`` are those of the arguments, by function; a format that writes texts bare needs
        them to tell the text ``5`` from the number.
        """
        if name not in FORMATS:
            raise ConfigError(f"there is no tool format {name!r}", fix=did_you_mean(name, FORMATS))
        self.format = FORMATS[name]
        self._schemas = schemas or {}
        self._wrappers = [TagSplitter(tag, tag) for tag in self.format.wrapper]
        # A closing tag that never comes: the call goes on to the end.
        closing = self.format.closing or "\0"
        self._splitter = TagSplitter(
            self.format.opening or "\0", closing, inside=not self.format.opening
        )
        self._body = ""

    def push(self, text: str) -> Turn:
        """Add text; return what it adds."""
        for wrapper in self._wrappers:
            text = "".join(piece.text for piece in wrapper.push(text))
        return self._take(text, ended=False)

    def flush(self) -> Turn:
        """Return what is left; the stream has ended."""
        text = ""
        for wrapper in self._wrappers:
            pieces = [*wrapper.push(text), *wrapper.flush()]
            text = "".join(piece.text for piece in pieces)
        return self._take(text, ended=True)

    def _take(self, text: str, *, ended: bool) -> Turn:
        pieces = self._splitter.push(text)
        if ended:
            pieces += self._splitter.flush()
        content, calls = "", []
        for kind, part in pieces:
            if kind == "outside":
                content += part
            elif kind == "inside":
                self._body += part
            else:
                content, calls = self._close(content, calls, self.format.closing)
        if ended and self._splitter.inside:
            content, calls = self._close(content, calls, "")
        return Turn(content, tuple(calls))

    def _close(
        self, content: str, calls: list[ToolCall], closing: str
    ) -> tuple[str, list[ToolCall]]:
        body, self._body = self._body, ""
        if self.format.field is None:
            found = self.format.read(body)
        else:
            found = xml_calls(body, self._schemas)
        if found is None:
            opening = self.format.opening if body or self.format.opening else ""
            return content + opening + body + closing, calls
        return content, [*calls, *found]


def detect_format(template: str) -> str | None:
    """Return the format that a chat template teaches its model, or none.

    >>> detect_format("... respond with <tool_call> ...")
    'hermes'
    """
    return next(
        (
            name
            for name, form in FORMATS.items()
            if all(marker in template for marker in form.markers)
        ),
        None,
    )
