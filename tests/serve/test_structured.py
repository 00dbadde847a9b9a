"""Fields that say what an answer must look like: read, passed on, enforced, refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import openai
import pytest

from tests.engine.support import model, tokenizer
from tests.serve.conftest import BuildApp, Post
from tests.serve.fakes import ByteRenderer, FakeEngine
from weft.core.errors import RequestError
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.serve.app import create_app
from weft.serve.limits import ServerConfig
from weft.serve.protocol import ChatBody, CompletionBody, parse
from weft.serve.server import BackgroundServer
from weft.serve.turns import TurnFormat
from weft.spec.structured import (
    EBNF,
    AfterThoughts,
    Choice,
    JSONObject,
    JSONSchema,
    Regex,
    StructuredSpec,
    Tagged,
)
from weft.text.render import Renderer

CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["a"],
    "additionalProperties": False,
}


def tool(name: str, **fields: object) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **fields}}


def named(name: str) -> dict:
    return {"type": "function", "function": {"name": name}}


def response_format(schema: object) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}


# Reading.


@pytest.mark.parametrize(
    ("fields", "spec"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, JSONObject()),
        ({"response_format": response_format(SCHEMA)}, JSONSchema.of(SCHEMA)),
        ({"structured_outputs": {"json": SCHEMA}}, JSONSchema.of(SCHEMA)),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, JSONSchema.of(SCHEMA)),
        (
            {"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True}},
            JSONSchema.of(SCHEMA, compact=True),
        ),
        ({"structured_outputs": {"json_object": True}}, JSONObject()),
        ({"structured_outputs": {"regex": "a+"}}, Regex("a+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Choice(("a", "b"))),
        ({"structured_outputs": {"grammar": "start: /a/"}}, EBNF("start: /a/")),
        ({"guided_json": SCHEMA}, JSONSchema.of(SCHEMA)),
        ({"guided_regex": "a+"}, Regex("a+")),
        ({"guided_choice": ["a", "b"]}, Choice(("a", "b"))),
        ({"guided_grammar": "start: /a/"}, EBNF("start: /a/")),
        ({"guided_regex": "a", "response_format": {"type": "text"}}, Regex("a")),
    ],
)
def test_every_name_of_a_structure_reaches_the_engine(fields: dict, spec: StructuredSpec | None):
    for body in (
        parse(CompletionBody, json.dumps({"prompt": "a", **fields}).encode()),
        parse(ChatBody, json.dumps({"messages": USER, **fields}).encode()),
    ):
        assert body.to_sampling(lambda text: list(text.encode())).structured == spec


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "text", "json_schema": {"name": "x"}}}, "response_format"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "shema": {}}}},
         "response_format.json_schema.shema"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[]"}, "guided_json"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_choice": ["a", ""]}, "guided_choice"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"guided_regex": "a", "ignore_eos": True}, "guided_regex"),
        ({"guided_regex": 5}, "guided_regex"),
    ],
)  # fmt: skip
def test_a_wrong_structure_is_refused_by_the_clients_name(fields: dict, param: str):
    with pytest.raises(RequestError) as caught:
        parse(CompletionBody, json.dumps({"prompt": "a", **fields}).encode()).to_sampling(list)
    assert caught.value.param == param


def test_a_misspelt_schema_field_gets_the_nearest_name():
    body = {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"shema": 1}}}
    with pytest.raises(RequestError, match="did you mean 'schema'"):
        parse(CompletionBody, json.dumps(body).encode())


# What a chat asks of the engine, per format.


def asked(build_app: BuildApp, engine: FakeEngine, turns: TurnFormat, opening="", **fields):
    app = build_app(renderer=ByteRenderer(opening), turns=turns, max_context=4096)
    answer = Post(app)(CHAT, {"messages": USER, **fields})
    assert answer.status_code == 200, answer.text
    return engine.requests[-1].sampling.structured


def refused(build_app: BuildApp, turns: TurnFormat, **fields) -> dict:
    app = build_app(turns=turns, max_context=4096)
    answer = Post(app)(CHAT, {"messages": USER, **fields})
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


HERMES = TurnFormat(tools="hermes")


def test_required_and_named_calls_are_written_in_the_models_format(build_app, engine):
    tools = [tool("add"), tool("sub", strict=True)]
    spec = asked(build_app, engine, HERMES, tools=tools, tool_choice="required")
    assert isinstance(spec, Tagged)
    assert [tag.begin for tag in spec.tags] == [
        '<tool_call>\n{"name": "add", "arguments": ',
        '<tool_call>\n{"name": "sub", "arguments": ',
    ]
    assert {tag.end for tag in spec.tags} == {"}\n</tool_call>"}
    assert {tag.content for tag in spec.tags} == {JSONSchema.of(SCHEMA)}
    assert (spec.trigger, spec.only_one, spec.separator) == (None, False, "\n")
    spec = asked(build_app, engine, HERMES, tools=tools, tool_choice=named("sub"))
    assert ['"sub"' in tag.begin for tag in spec.tags] == [True]
    assert spec.only_one
    llama = TurnFormat(tools="llama")
    spec = asked(build_app, engine, llama, tools=tools, tool_choice=named("add"))
    assert (spec.tags[0].begin, spec.tags[0].end) == ('{"name": "add", "parameters": ', "}")


def test_strict_holds_the_arguments_of_free_calls(build_app, engine):
    tools = [tool("add", strict=True), tool("sub")]
    spec = asked(build_app, engine, HERMES, tools=tools, parallel_tool_calls=False)
    assert (spec.trigger, spec.only_one) == ("<tool_call>", True)
    assert [tag.content for tag in spec.tags] == [
        JSONSchema.of(SCHEMA),
        JSONSchema('{"type": "object"}'),
    ]
    assert asked(build_app, engine, HERMES, tools=[tool("sub")]) is None
    assert asked(build_app, engine, HERMES, tools=tools, tool_choice="none") is None


def test_a_call_or_an_answer(build_app, engine):
    fields = {"tools": [tool("add")], "response_format": response_format(SCHEMA)}
    spec = asked(build_app, engine, HERMES, **fields)
    assert spec.otherwise == JSONSchema.of(SCHEMA)
    assert asked(build_app, engine, HERMES, **fields, tool_choice="none") == spec.otherwise


def test_a_thinking_model_thinks_first(build_app, engine):
    turns = TurnFormat(reasoning=True, tools="hermes")
    fields = {"response_format": response_format(SCHEMA)}
    content = JSONSchema.of(SCHEMA)
    spec = asked(build_app, engine, turns, **fields)
    assert spec == AfterThoughts(content, "</think>", "<think>")
    spec = asked(build_app, engine, turns, "<think>\n", **fields)
    assert spec == AfterThoughts(content, "</think>", None)
    forced = asked(build_app, engine, turns, tools=[tool("add")], tool_choice="required")
    assert isinstance(forced.content, Tagged)
    assert asked(build_app, engine, turns) is None


@pytest.mark.parametrize(
    ("turns", "fields", "param"),
    [
        (HERMES, {"tool_choice": "required"}, "tool_choice"),
        (HERMES, {"tool_choice": "always", "tools": [tool("add")]}, "tool_choice"),
        (HERMES, {"tool_choice": named("ad"), "tools": [tool("add")]}, "tool_choice"),
        (HERMES, {"tool_choice": {"type": "x"}, "tools": [tool("add")]}, "tool_choice"),
        (HERMES, {"tool_choice": "required", "tools": [tool("add")], "guided_regex": "a"},
         "tool_choice"),
        (TurnFormat(tools="deepseek"), {"tool_choice": "required", "tools": [tool("a b")]},
         "tools"),
        (TurnFormat(tools="qwen_xml"), {"tool_choice": "required", "tools": [
            tool("f", parameters={"type": "object", "minProperties": 1})]}, "tools"),
        (TurnFormat(tools="qwen_xml"), {"tool_choice": "required", "tools": [
            tool("f", parameters={"type": "object", "properties": {"a>": {}}})]}, "tools"),
        (TurnFormat(tools="qwen_xml"), {"tool_choice": "required", "tools": [
            tool("f", parameters={"type": "object", "required": ["a"]})]}, "tools"),
        (TurnFormat(tools="qwen_xml"), {"tool_choice": "required", "tools": [tool("f", parameters={
            "type": "object", "properties": {"a": {"type": "string", "pattern": "a"}}})]}, "tools"),
        (TurnFormat(tools="llama"), {"tools": [tool("add", strict=True)]}, "tools"),
    ],
)  # fmt: skip
def test_a_call_that_cannot_be_forced_is_refused(build_app, turns, fields: dict, param: str):
    assert refused(build_app, turns, **fields)["param"] == param


def test_a_wrong_name_gets_the_nearest_tool(build_app):
    error = refused(build_app, HERMES, tool_choice=named("ad"), tools=[tool("add")])
    assert "did you mean 'add'" in error["message"]


# Against the real engine with random weights.


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    sizes = EngineConfig(num_blocks=256, block_size=4, max_num_sequences=16)
    engine = AsyncEngine(model(), tokenizer(), sizes)
    config = ServerConfig(port=0)
    app = create_app(
        engine, tokenizer(), "tiny", config, max_context=engine.context_limit,
        renderer=Renderer(tokenizer()), turns=HERMES,
    )  # fmt: skip
    with BackgroundServer(app, config) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            yield client
    engine.shutdown()


def chat(client: openai.OpenAI, **fields):
    return client.chat.completions.create(
        model="tiny", messages=USER, seed=1, max_tokens=100, **fields
    )


def test_answers_meet_the_schema_whole_and_streamed(client: openai.OpenAI):
    bounded = {"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True}}
    whole = chat(client, n=4, extra_body=bounded)
    for choice in whole.choices:
        assert choice.finish_reason == "stop"
        assert re.fullmatch(r'\{"a":[0-9]\}', choice.message.content)
    with chat(client, stream=True, extra_body=bounded) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole.choices[0].message.content
    answer = client.completions.create(
        model="tiny", prompt="to weave", max_tokens=30, extra_body={"guided_regex": "[xyz]{3}"}
    )
    assert re.fullmatch("[xyz]{3}", answer.choices[0].text)


def test_openais_response_format(client: openai.OpenAI):
    answer = chat(client, response_format=response_format({"enum": ["red", "green"]}))
    assert json.loads(answer.choices[0].message.content) in ("red", "green")


@pytest.mark.parametrize("stream", [False, True])
def test_random_weights_call_the_tool_they_must(client: openai.OpenAI, stream: bool):
    # White space inside the arguments would go on for long; a bias against it ends it soon.
    tools = [tool("add"), tool("sub")]
    spaces = {str(id): -100 for id in range(tokenizer().vocab_size)
              if not tokenizer().token_bytes(id).strip()}  # fmt: skip
    fields = {"tools": tools, "tool_choice": named("sub"), "logit_bias": spaces, "top_p": 0.9}
    if stream:
        with chat(client, stream=True, **fields) as chunks:
            deltas = [chunk.choices[0] for chunk in chunks]
        calls = [call for delta in deltas for call in delta.delta.tool_calls or ()]
        reason = deltas[-1].finish_reason
    else:
        (choice,) = chat(client, **fields).choices
        calls, reason = choice.message.tool_calls, choice.finish_reason
        assert choice.message.content is None
    (call,) = calls
    assert call.function.name == "sub"
    assert 0 <= json.loads(call.function.arguments)["a"] <= 9
    assert reason == "tool_calls"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": response_format({"type": "objekt"})}, "response_format"),
        ({"response_format": response_format({"not": {}})}, "response_format"),
        ({"extra_body": {"guided_regex": "("}}, "guided_regex"),
        ({"extra_body": {"structured_outputs": {"grammar": "start: b"}}}, "structured_outputs"),
        ({"tools": [tool("f", parameters={"not": {}})], "tool_choice": "required"}, "tools"),
        ({"tools": [tool("f", parameters={"type": "x"}, strict=True)]}, "tools"),
    ],
)
def test_what_cannot_be_enforced_is_400_with_field_and_reason(
    client: openai.OpenAI, fields: dict, param: str
):
    with pytest.raises(openai.BadRequestError, match="cannot be enforced: ") as caught:
        chat(client, **fields)
    assert caught.value.param == param
