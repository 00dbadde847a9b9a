"""Reasoning and tool calls do not depend on where a stream is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.text.parsers.reasoning import ReasoningParser, starts_inside
from weft.text.parsers.tags import TagSplitter
from weft.text.parsers.tool_bodies import ToolCall
from weft.text.parsers.tools import FORMATS, ToolParser, detect_format

FRAGMENTS = st.lists(
    st.sampled_from(["<", "<think>", "</think>", "</", "think>", "a", " ", "\n", "<thi", "b>"])
)


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces, position = [], 0
    for size in sizes:
        pieces.append(text[position : position + size])
        position += size
    return [*pieces, text[position:]]


def reason(pieces: list[str], **kwargs) -> tuple[str, str]:
    parser = ReasoningParser(**kwargs)
    said = [*(parser.push(piece) for piece in pieces), parser.flush()]
    return "".join(s.reasoning for s in said), "".join(s.content for s in said)


def parse(name: str, pieces: list[str]) -> tuple[str, list[ToolCall]]:
    parser = ToolParser(name)
    turns = [*(parser.push(piece) for piece in pieces), parser.flush()]
    return "".join(t.content for t in turns), [call for t in turns for call in t.calls]


@given(FRAGMENTS, st.lists(st.integers(1, 5)), st.booleans())
def test_reasoning_is_the_same_wherever_the_stream_is_cut(fragments, sizes, inside):
    text = "".join(fragments)
    whole = reason([text], starts_inside=inside)
    assert reason(cut(text, sizes), starts_inside=inside) == whole
    assert reason(list(text), starts_inside=inside) == whole


@given(FRAGMENTS, st.lists(st.integers(1, 5)))
def test_tags_are_all_that_is_lost(fragments, sizes):
    text = "".join(fragments)
    splitter = TagSplitter("<think>", "</think>")
    pieces = [piece for part in cut(text, sizes) for piece in splitter.push(part)]
    pieces += splitter.flush()
    restored, inside = "", False
    for kind, part in pieces:
        if kind == "closed":
            restored, inside = restored + ("" if inside else "<think>") + "</think>", False
        else:
            restored += "<think>" if kind == "inside" and not inside else ""
            restored, inside = restored + part, kind == "inside"
    if splitter.inside and not inside:
        restored += "<think>"
    assert restored == text


def test_thoughts_and_answer():
    assert reason(["<think>\nhm\n\nok\n</think>\n\nYes.\n"]) == ("hm\n\nok", "Yes.")
    assert reason(["hm</think>Yes."], starts_inside=True) == ("hm", "Yes.")
    assert reason(["<think>cut off"]) == ("cut off", "")
    assert reason(["no thoughts, a < b"]) == ("", "no thoughts, a < b")
    assert starts_inside("assistant\n<think>\n")
    assert not starts_inside("assistant\n")


CALL = {"name": "get_weather", "arguments": {"city": "São Paulo", "days": 2, "nested": {"a": [1]}}}
EXPECTED = ("get_weather", CALL["arguments"])
ANSWERS = {
    "hermes": f"Let me look.\n<tool_call>\n{json.dumps(CALL)}\n</tool_call>",
    "qwen_xml": (
        "Let me look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nSão Paulo\n"
        '</parameter>\n<parameter=days>\n2\n</parameter>\n<parameter=nested>\n{"a": [1]}\n'
        "</parameter>\n</function>\n</tool_call>"
    ),
    "deepseek": (
        "Let me look.\n<｜tool▁calls▁begin｜>"
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        f"```json\n{json.dumps(CALL['arguments'])}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek_v31": (
        "Let me look.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
        f"{json.dumps(CALL['arguments'])}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "mistral": f"Let me look.\n[TOOL_CALLS][{json.dumps(CALL)}]",
    "llama": f"<|python_tag|>{json.dumps({'name': CALL['name'], 'parameters': CALL['arguments']})}",
}


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(st.lists(st.integers(1, 9)))
def test_a_call_is_found_wherever_the_stream_is_cut(name, sizes):
    content, calls = parse(name, cut(ANSWERS[name], sizes))
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [EXPECTED]
    assert content == ("" if name == "llama" else "Let me look.\n")


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("text", ["plain", "a < b", '{"name": 3}', "{broken", ""])
def test_what_is_no_call_stays_text(name, text):
    assert parse(name, [text]) == (text, [])


def test_a_broken_call_is_given_back_with_its_tags():
    text = "<tool_call>{not json}</tool_call> and on"
    assert parse("hermes", list(text)) == (text, [])
    assert parse("hermes", ["<tool_call>{"]) == ("<tool_call>{", [])


def test_several_calls():
    one = '{"name": "a", "arguments": {}}'
    text = f"<tool_call>{one}</tool_call><tool_call>{one}</tool_call>"
    assert parse("hermes", [text])[1] == [ToolCall("a", "{}")] * 2
    assert parse("llama", [f"{one}; {one}"])[1] == [ToolCall("a", "{}")] * 2
    for between in ("", "[ARGS]", "[CALL_ID]a1b2c3d4e[ARGS]"):
        text = f'[TOOL_CALLS]f.g{between}{{"x": 1}}'
        assert parse("mistral", [text])[1] == [ToolCall("f.g", '{"x": 1}')]
    v31 = '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"x": 1}<｜tool▁call▁end｜>'
    assert parse("deepseek", [v31])[1] == [ToolCall("f", '{"x": 1}')]


def test_a_schema_tells_bare_texts_from_json():
    text = (
        "<tool_call><function=f><parameter=a>\n5\n</parameter>"
        "<parameter=b>\n5\n</parameter></function></tool_call>"
    )
    schema = {"properties": {"a": {"type": "string"}, "b": {"type": ["string", "integer"]}}}
    for schemas, expected in (({}, (5, 5)), ({"f": schema}, ("5", 5)), ({"f": None}, (5, 5))):
        (call,) = ToolParser("qwen_xml", schemas).push(text).calls
        assert tuple(json.loads(call.arguments).values()) == expected


def test_arguments_written_as_text_are_read():
    text = '<tool_call>{"name": "a", "arguments": "{\\"x\\": 1}"}</tool_call>'
    assert parse("hermes", [text])[1] == [ToolCall("a", '{"x": 1}')]


def test_format_is_told_by_the_template():
    assert detect_format("<tool_call>\n<function=...") == "qwen_xml"
    assert detect_format("{{ '<tool_call>' }}") == "hermes"
    assert detect_format("[TOOL_CALLS]") == "mistral"
    assert detect_format("<｜tool▁call▁begin｜> ```json") == "deepseek"
    assert detect_format("<｜tool▁call▁begin｜> name") == "deepseek_v31"
    assert detect_format("no tools") is None
    with pytest.raises(ConfigError, match="hermes"):
        ToolParser("hermes2")
