"""Calls that are demanded of random weights are valid calls, in every format of every family."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from tests.engine.grammar.support import accepts, ids_of, start
from tests.engine.support import tokenizer
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.models.decoder import Decoder
from weft.serve.protocol import ChatBody, parse
from weft.serve.tool_choice import constrain
from weft.serve.turns import TurnFormat
from weft.spec import FinishReason, ModelShape
from weft.spec.structured import Fields, JSONSchema, Tag, Tagged
from weft.text.parsers.tools import FORMATS, ToolParser

NUM_SAMPLES = 4
ADD = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": -9, "maximum": 99},
        "unit": {"type": "string", "enum": ["m", "</p> km", "5"]},
        "note": {"type": "string", "maxLength": 6},
        "exact": {"type": "boolean"},
    },
    "required": ["a", "note"],
    "additionalProperties": False,
}
FIND = {
    "type": "object",
    "properties": {
        "where": {"$ref": "#/$defs/place"},
        "either": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0, "maximum": 9}]},
    },
    "required": ["where"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "array", "items": {"enum": [1, "x"]}, "maxItems": 2}},
}
EMPTY = {"type": "object", "properties": {}, "additionalProperties": False}
SCHEMAS = {"add": ADD, "find.it": FIND, "stop-now": EMPTY}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]


@functools.cache
def llm() -> LLM:
    shape = ModelShape(dim=32, num_layers=1, num_heads=4, num_kv_heads=2, context_length=1024)
    model = Decoder(shape.build(300, eos_ids=tokenizer().eos_ids), seed=3).eval()
    return LLM(model, tokenizer(), EngineConfig(num_blocks=2048, block_size=8))


def ask(name: str, **fields: Any):
    """Return the texts of a chat that must call, random but without needless white space."""
    spaces = {str(id): -100 for id in range(300) if not tokenizer().token_bytes(id).strip()}
    body = {"messages": [], "tools": TOOLS, "logit_bias": spaces, "max_tokens": 900, **fields}
    chat = parse(ChatBody, json.dumps(body).encode())
    sampling = chat.to_sampling(tokenizer().encode)
    sampling = constrain(sampling, chat, TurnFormat(tools=name), inside_thoughts=False)
    return llm().generate([[1, 2, 3]], sampling, num_samples=NUM_SAMPLES)


def calls_of(name: str, text: str):
    parser = ToolParser(name, SCHEMAS)
    pushed, flushed = parser.push(text), parser.flush()
    return (pushed.content + flushed.content).strip(), [*pushed.calls, *flushed.calls]


def check(name: str, completions, names=tuple(SCHEMAS)) -> int:
    """Assert that every answer consists of valid calls; return how many there are."""
    num_calls = 0
    for completion in completions:
        assert completion.finish_reason is FinishReason.STOP
        content, calls = calls_of(name, completion.text)
        assert content == "", completion.text
        assert calls, completion.text
        for call in calls:
            assert call.name in names
            arguments = json.loads(call.arguments)
            assert accepts(SCHEMAS[call.name], arguments, SCHEMAS[call.name]), completion.text
        num_calls += len(calls)
    return num_calls


@pytest.mark.parametrize("name", FORMATS)
def test_demanded_calls_are_all_valid(name):
    completions = ask(name, tool_choice="required", seed=1, parallel_tool_calls=False)
    assert check(name, completions) == NUM_SAMPLES


@pytest.mark.parametrize("name", FORMATS)
def test_a_named_function_is_called_once(name):
    choice = {"type": "function", "function": {"name": "add"}}
    completions = ask(name, tool_choice=choice, seed=2)
    assert check(name, completions, ["add"]) == NUM_SAMPLES
    assert len({completion.text for completion in completions}) > 1


@pytest.mark.parametrize("name", FORMATS)
def test_several_calls_are_told_apart(name):
    # No bias decides between one more call and the end here: calls follow one another.
    texts = ask(name, tool_choice="required", seed=3, tools=TOOLS[2:], temperature=100.0)
    assert check(name, texts, ["stop-now"]) > NUM_SAMPLES


def test_bare_texts_do_not_contain_what_ends_them():
    """The tag of a text is spelt in pieces of the alphabet that could write it too early."""
    spec = Fields(
        json.dumps({"type": "object", "properties": {"t": {"type": "string"}}, "required": ["t"]}),
        "<parameter=NAME>\n",
        "\n</parameter>\n",
        forbidden=("</function>", "</parameter>"),
    )
    state = start(
        Tagged((Tag("<f>", spec, "</f>"),), only_one=True),
        b"<f><parameter=t>\n", b"</function", b">", b"</div>", b"\n</parameter>", b"\n", b"</f>",
    )  # fmt: skip
    first, function, closer, div, parameter, line, last = range(7)
    assert ids_of(state.mask(())) == {first}
    for token in (first, div, function):
        state.accept(token)
    assert closer not in ids_of(state.mask(()))
    for token in (div, parameter, line):
        state.accept(token)
    assert ids_of(state.mask(())) == {last}


def test_special_tokens_of_a_call_are_drawn_not_spelt():
    """Mistral's [TOOL_CALLS] is a token of its own that no text contains."""
    schema = JSONSchema.of({"enum": [1]})
    tag = Tag("<|end|>[", schema, "]")
    state = start(Tagged((tag,), only_one=True), b"<|end|>", b"[", b"1", b"]")
    assert ids_of(state.mask(())) == {4}
    for token in (4, 1, 2, 3):
        state.accept(token)
    free = start(Tagged((tag,), trigger="<|end|>"), b"<|end|>", b"[", b"1", b"]")
    assert ids_of(free.mask(())) >= {0, 1, 2, 3, 4}
    free.accept(0)
    free.accept(4)
    assert ids_of(free.mask(())) == {1}


def test_calls_of_special_tokens_are_shown():
    body = {"messages": [], "tools": TOOLS}
    chat = parse(ChatBody, json.dumps(body).encode())
    for name, form in FORMATS.items():
        sampling = chat.to_sampling(tokenizer().encode)
        sampling = constrain(sampling, chat, TurnFormat(tools=name), inside_thoughts=False)
        assert sampling.skip_special_tokens == (not form.special)
