"""Thoughts and tool calls in chat answers, whole and streamed."""

from __future__ import annotations

import json

import pytest

from tests.serve.conftest import BuildApp, Post
from tests.serve.fakes import ByteRenderer, FakeEngine
from weft.serve.turns import TurnFormat

CHAT = "/v1/chat/completions"
TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}},
}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
USER = [{"role": "user", "content": "hi"}]


def poster(build_app: BuildApp, opening: str = "", **format: object) -> tuple[Post, ByteRenderer]:
    renderer = ByteRenderer(opening)
    turns = TurnFormat(**{"reasoning": True, "tools": "hermes", **format})
    return Post(build_app(renderer=renderer, turns=turns, max_context=2048)), renderer


def streamed(text: str) -> tuple[dict, str | None]:
    """Put the deltas of a stream together as a client does."""
    message = {"content": "", "reasoning_content": "", "tool_calls": []}
    reason = None
    for line in text.splitlines():
        if not line.startswith("data: {"):
            continue
        (choice,) = json.loads(line.removeprefix("data: "))["choices"]
        reason = choice["finish_reason"] or reason
        for name, value in choice["delta"].items():
            if name in message:
                message[name] += value
    return message, reason


def test_a_tool_call_is_returned_apart_from_the_text(build_app: BuildApp, engine: FakeEngine):
    engine.reply = f"<think>\nhm\n</think>\n\nLet me see.\n{CALL}"
    post, renderer = poster(build_app)
    body = {"messages": USER, "tools": [TOOL], "chat_template_kwargs": {"enable_thinking": True}}
    (choice,) = post(CHAT, body).json()["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert message["reasoning_content"] == "hm"
    assert message["content"] == "Let me see."
    (call,) = message["tool_calls"]
    assert call["type"] == "function"
    assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert renderer.calls[-1]["tools"][0]["function"]["name"] == "add"
    assert renderer.calls[-1]["variables"] == {"enable_thinking": True}

    stream = post(CHAT, {**body, "stream": True}).text
    whole, reason = streamed(stream)
    assert reason == "tool_calls"
    assert whole["reasoning_content"] == "hm"
    assert whole["content"].strip() == "Let me see."
    (call,) = whole["tool_calls"]
    assert call["index"] == 0
    assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}


def test_several_calls_or_only_one(build_app: BuildApp, engine: FakeEngine):
    engine.reply = CALL + CALL
    post, _ = poster(build_app)
    body = {"messages": USER, "tools": [TOOL]}
    message = post(CHAT, body).json()["choices"][0]["message"]
    assert message["content"] is None
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    indices = streamed(post(CHAT, {**body, "stream": True}).text)[0]["tool_calls"]
    assert [call["index"] for call in indices] == [0, 1]
    one = post(CHAT, {**body, "parallel_tool_calls": False}).json()["choices"][0]["message"]
    assert len(one["tool_calls"]) == 1


def test_without_tools_a_call_is_text(build_app: BuildApp, engine: FakeEngine):
    engine.reply = CALL
    post, renderer = poster(build_app)
    for body in ({"messages": USER}, {"messages": USER, "tools": [TOOL], "tool_choice": "none"}):
        (choice,) = post(CHAT, body).json()["choices"]
        assert choice["message"]["content"] == CALL
        assert choice["finish_reason"] == "stop"
        assert renderer.calls[-1]["tools"] is None


def test_a_prompt_that_opens_the_thoughts(build_app: BuildApp, engine: FakeEngine):
    engine.reply = "hm</think>Yes"
    post, _ = poster(build_app, opening="<think>\n")
    message = post(CHAT, {"messages": USER}).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "Yes")
    whole, _ = streamed(post(CHAT, {"messages": USER, "stream": True}).text)
    assert (whole["reasoning_content"], whole["content"]) == ("hm", "Yes")


def test_the_history_of_a_tool_call_reaches_the_template(build_app: BuildApp):
    post, renderer = poster(build_app)
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    history = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]
    assert post(CHAT, {"messages": history, "tools": [TOOL]}).status_code == 200
    _, assistant, tool = renderer.calls[-1]["messages"]
    assert assistant["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert tool == {"role": "tool", "content": "2", "tool_call_id": "c1"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": "{"}}]}]}, "messages"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(build_app: BuildApp, fields: dict, param: str):
    post, _ = poster(build_app)
    answer = post(CHAT, {"messages": USER, **fields})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_tools_for_a_model_without_tool_calls_are_refused(build_app: BuildApp):
    post, _ = poster(build_app, tools=None)
    answer = post(CHAT, {"messages": USER, "tools": [TOOL]})
    assert answer.status_code == 400
    assert "no tool calls" in answer.json()["error"]["message"]
