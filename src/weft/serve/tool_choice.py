"""Which calls a chat request forces or constrains, written in the model's own format."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from weft.core.errors import RequestError, UnsupportedError, did_you_mean
from weft.serve.turns import TurnFormat
from weft.spec.sampling import SamplingParams
from weft.spec.structured import (
    AfterThoughts,
    Fields,
    JSONObject,
    JSONSchema,
    StructuredSpec,
    Tag,
    Tagged,
)
from weft.text.parsers.reasoning import CLOSING, OPENING
from weft.text.parsers.tools import FORMATS, ToolFormat

_BARE_NAME = re.compile(r"[\w.\-]+")
# What ``weft.text.parsers`` takes for the end of a bare text.
_ENDS_OF_FIELDS = ("<parameter=", "</parameter>", "</function>", "</tool_call>")

if TYPE_CHECKING:
    from weft.serve.messages import FunctionBody
    from weft.serve.protocol import ChatBody


def check_tool_choice(choice: str | dict[str, Any], names: Sequence[str]) -> None:
    """Refuse a choice that no offered tool can meet.

    Raises:
        RequestError: naming ``tool_choice``.
    """
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise RequestError(
            f"tool_choice is {choice!r}",
            fix="use 'auto', 'none', 'required' or a function",
            param="tool_choice",
        )
    if choice == "required" and not names:
        raise RequestError(
            "tool_choice is 'required', but there are no tools",
            fix="send tools",
            param="tool_choice",
        )
    if isinstance(choice, dict) and chosen_function(choice) not in names:
        name = chosen_function(choice)
        raise RequestError(
            f"tool_choice {json.dumps(choice)} names no tool of this request",
            fix='send {"type": "function", "function": {"name": ...}}'
            if name is None
            else did_you_mean(name, names),
            param="tool_choice",
        )


def chosen_function(choice: str | dict[str, Any]) -> str | None:
    """Return the function that OpenAI's object names."""
    if not isinstance(choice, dict) or choice.keys() != {"type", "function"}:
        return None
    function = choice["function"]
    if choice["type"] != "function" or not isinstance(function, dict):
        return None
    name = function.get("name")
    return name if isinstance(name, str) else None


def constrain(
    sampling: SamplingParams, body: ChatBody, turns: TurnFormat, *, inside_thoughts: bool
) -> SamplingParams:
    """Add what the tools of a request demand, and let a thinking model think first.

    Args:
        sampling: With the structure of the answer, if one was asked for.
        body: The request.
        turns: How the model writes its turns.
        inside_thoughts: The prompt has opened the thoughts.
    """
    if body.offered_tools is not None and turns.tools is not None and FORMATS[turns.tools].special:
        sampling = dataclasses.replace(sampling, skip_special_tokens=False)
    spec = sampling.structured
    calls = _calls(body, turns, spec)
    spec = spec if calls is None else calls
    if spec is None:
        return sampling
    free = isinstance(spec, Tagged) and spec.trigger is not None
    if turns.reasoning and not free and not isinstance(spec, AfterThoughts):
        spec = AfterThoughts(spec, CLOSING, None if inside_thoughts else OPENING)
    return dataclasses.replace(sampling, structured=spec)


def _calls(body: ChatBody, turns: TurnFormat, answer: StructuredSpec | None) -> Tagged | None:
    """Return how calls have to look, none if they may look as they like."""
    if body.offered_tools is None or turns.tools is None:
        return None
    functions = [tool.function for tool in body.tools]
    form = FORMATS[turns.tools]
    only_one = not body.parallel_tool_calls
    if body.tool_choice != "auto":
        if answer is not None:
            raise RequestError(
                "tool_choice demands a call and another field an answer",
                fix="use tool_choice 'auto' for either, or leave one out",
                param="tool_choice",
            )
        name = chosen_function(body.tool_choice)
        wanted = [it for it in functions if name in (None, it.name)]
        tags = _tags(wanted, form)
        return _tagged(form, tags, only_one=only_one or name is not None)
    if answer is not None:
        if not form.opening or not isinstance(answer, JSONSchema | JSONObject):
            raise UnsupportedError(
                "this model's tool calls and such an answer cannot be told apart",
                fix="use tool_choice 'none' or 'required'",
            )
        return _tagged(form, _tags(functions, form), only_one=only_one, otherwise=answer)
    if not any(function.strict for function in functions):
        return None
    if not form.opening:
        raise RequestError(
            f"free calls cannot be told from text in this model's format {turns.tools!r}",
            fix="leave strict out and check the calls, or demand them by tool_choice",
            param="tools",
        )
    tags = _tags(functions, form, only_strict=True)
    return _tagged(form, tags, only_one=only_one, trigger=form.trigger)


def _tagged(
    form: ToolFormat,
    tags: tuple[Tag, ...],
    *,
    only_one: bool,
    trigger: str | None = None,
    otherwise: JSONSchema | JSONObject | None = None,
) -> Tagged:
    opening, closing = form.group
    return Tagged(
        tags,
        form.separator,
        trigger,
        only_one=only_one,
        otherwise=otherwise,
        opening=opening,
        closing=closing,
    )


def _tags(
    functions: Sequence[FunctionBody], form: ToolFormat, *, only_strict: bool = False
) -> tuple[Tag, ...]:
    before, after = form.written
    return tuple(
        Tag(
            _named(before, function.name),
            _arguments(function, form, constrained=function.strict or not only_strict),
            after,
        )
        for function in functions
    )


def _named(text: str, name: str) -> str:
    """Put a function's name in; a format that writes it bare has no way to quote it."""
    if "BARE_NAME" not in text:
        return text.replace("NAME", json.dumps(name, ensure_ascii=False))
    if not _BARE_NAME.fullmatch(name):
        raise RequestError(
            f"the function {name!r} cannot be called in this model's format",
            fix="name it with letters, digits, '_', '-' and '.'",
            param="tools",
        )
    return text.replace("BARE_NAME", name)


def _arguments(
    function: FunctionBody, form: ToolFormat, *, constrained: bool
) -> JSONSchema | Fields:
    schema = function.parameters if constrained or form.field is not None else {}
    # Arguments are an object, also where a schema forgets to say so.
    schema = schema if "type" in schema else {**schema, "type": "object"}
    if form.field is None:
        return JSONSchema.of(schema)
    begin, end = form.field
    text = json.dumps(schema, ensure_ascii=False)
    return Fields(text, begin, end, forbidden=_ENDS_OF_FIELDS)
