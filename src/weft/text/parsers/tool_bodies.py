"""What stands between the tags of a tool call, per format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from weft.spec.structured import is_bare


class ToolCall(NamedTuple):
    """A call of a tool.

    Attributes:
        name: The function.
        arguments: A JSON object as text.
    """

    name: str
    arguments: str


def json_calls(body: str) -> list[ToolCall] | None:
    """Read one or a list of ``{"name": ..., "arguments" or "parameters": {...}}``.

    Returns none if the text is no such thing. Several objects may follow each other, with
    semicolons or white space between them (Llama 3).
    """
    decoder, values, position = json.JSONDecoder(), [], 0
    text = body.strip()
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError:
            return None
        values += value if isinstance(value, list) else [value]
        position += len(text[position:]) - len(text[position:].lstrip("; \t\r\n"))
    calls = [_from_object(value) for value in values]
    found = [call for call in calls if call is not None]
    return found if found and len(found) == len(calls) else None


def _from_object(value: Any) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # some models write the object as a text of JSON
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            return None
    if not isinstance(arguments, dict):
        return None
    return ToolCall(value["name"], json.dumps(arguments, ensure_ascii=False))


_FUNCTION = re.compile(r"\s*<function=([^>\s]+)>(.*?)(?:</function>)?\s*", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)


def xml_calls(body: str, schemas: Mapping[str, Any] | None = None) -> list[ToolCall] | None:
    """Read ``<function=NAME><parameter=KEY>VALUE</parameter>...</function>`` (Qwen3-Coder).

    A value whose schema says that it is a text is one, without the line breaks around it. Of the
    others, what is JSON is taken as such, the rest as text.
    """
    match = _FUNCTION.fullmatch(body)
    if match is None:
        return None
    schema = (schemas or {}).get(match[1])
    properties = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
    arguments = {
        name: _value(text, is_text=is_bare(properties.get(name)))
        for name, text in _PARAMETER.findall(match[2])
    }
    return [ToolCall(match[1], json.dumps(arguments, ensure_ascii=False))]


def _value(text: str, *, is_text: bool) -> Any:
    text = text.removeprefix("\n").removesuffix("\n")
    if is_text:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


_NAME_AND_OBJECT = re.compile(
    r"\s*([\w.\-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?(?:\[ARGS\])?\s*(\{.*\})\s*", re.DOTALL
)


def named_calls(body: str) -> list[ToolCall] | None:
    """Read ``NAME[ARGS]{...}`` (Mistral since v11), or what ``json_calls`` reads."""
    match = _NAME_AND_OBJECT.fullmatch(body)
    if match is None:
        return json_calls(body)
    return json_calls(json.dumps({"name": match[1], "arguments": match[2]}))


_DEEPSEEK = re.compile(
    r"\s*(?:function)?<｜tool▁sep｜>\s*([\w.\-]+)\s*(?:```json\s*)?(\{.*\})\s*(?:```)?\s*",
    re.DOTALL,
)
_DEEPSEEK_V31 = re.compile(r"\s*([\w.\-]+)\s*<｜tool▁sep｜>\s*(\{.*\})\s*", re.DOTALL)


def deepseek_calls(body: str) -> list[ToolCall] | None:
    """Read ``function<sep>NAME`` with a fenced object (V3, R1), or ``NAME<sep>{...}`` (V3.1)."""
    match = _DEEPSEEK.fullmatch(body) or _DEEPSEEK_V31.fullmatch(body)
    if match is None:
        return None
    return json_calls(json.dumps({"name": match[1], "arguments": match[2]}))
