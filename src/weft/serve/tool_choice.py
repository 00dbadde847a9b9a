"""Which calls a chat request forces or constrains, written in the model's own format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from weft.core.errors import RequestError, UnsupportedError, did_you_mean
from weft.serve.turns import TurnFormat
from weft.spec.sampling import SamplingParams
from weft.spec.structured import (
    AfterThoughts,
    JSONObject,
    JSONSchema,
    StructuredSpec,
    Tag,
    Tagged,
)
from weft.text.parsers.reasoning import CLOSING, OPENING
from weft.text.parsers.tools import FORMATS, ToolFormat

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
        tags = _tags(wanted, turns.tools, form, "tool_choice")
        return Tagged(tags, form.separator, only_one=only_one or name is not None)
    if answer is not None:
        if not form.opening or not isinstance(answer, JSONSchema | JSONObject):
            raise UnsupportedError(
                "this model's tool calls and such an answer cannot be told apart",
                fix="use tool_choice 'none' or 'required'",
            )
        tags = _tags(functions, turns.tools, form, "tools")
        return Tagged(tags, form.separator, only_one=only_one, otherwise=answer)
    if not any(function.strict for function in functions):
        return None
    tags = _tags(functions, turns.tools, form, "tools", only_strict=True)
    if not form.opening:
        raise _unsupported(turns.tools, "tools")
    return Tagged(tags, form.separator, trigger=form.opening, only_one=only_one)


def _tags(
    functions: Sequence[FunctionBody],
    name: str,
    form: ToolFormat,
    param: str,
    *,
    only_strict: bool = False,
) -> tuple[Tag, ...]:
    if form.written is None:
        raise _unsupported(name, param)
    before, after = form.written
    return tuple(
        Tag(
            before.replace("NAME", json.dumps(function.name, ensure_ascii=False)),
            _arguments(function, constrained=function.strict or not only_strict),
            after,
        )
        for function in functions
    )


def _arguments(function: FunctionBody, *, constrained: bool) -> JSONSchema:
    schema = function.parameters if constrained else {}
    # Arguments are an object, also where a schema forgets to say so.
    return JSONSchema.of(schema if "type" in schema else {**schema, "type": "object"})


def _unsupported(name: str, param: str) -> RequestError:
    return RequestError(
        f"calls cannot be constrained in this model's format {name!r}",
        fix="use tool_choice 'auto' without strict, and check the calls",
        param=param,
    )
