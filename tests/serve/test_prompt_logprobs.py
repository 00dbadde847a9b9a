"""``echo``, ``logprobs`` and ``prompt_logprobs``: what a client learns of its own prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.engine.support import make_llm, model, tokenizer
from tests.serve.conftest import Post
from tests.serve.fakes import FakeEngine
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.serve.limits import ServerConfig
from weft.serve.local import create_engine_app
from weft.serve.server import BackgroundServer

PROMPT = "the quick brown fox"


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    engine = AsyncEngine(model(), tokenizer(), EngineConfig(num_blocks=64, block_size=4))
    config = ServerConfig(port=0)
    app = create_engine_app(engine, tokenizer(), "tiny", config)
    with BackgroundServer(app, config) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            yield client
    engine.shutdown()


def error_of(response: httpx.Response) -> dict:
    assert response.status_code == 400, response.text
    return response.json()["error"]


def complete(call: Post, **fields: object) -> dict:
    response = call("/v1/completions", {"prompt": "ab", **fields})
    assert response.status_code == 200, response.text
    return response.json()


def chunks_of(call: Post, **fields: object) -> list[dict]:
    response = call("/v1/completions", {"prompt": "ab", "stream": True, **fields})
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line)["choices"][0] for line in lines]


def test_echo_puts_the_prompt_in_front(call: Post):
    (choice,) = complete(call, echo=True, max_tokens=3)["choices"]
    assert choice["text"] == "abhel"
    assert choice["logprobs"] is None
    assert choice["finish_reason"] == "length"


def test_echo_with_logprobs_begins_with_those_of_the_prompt(call: Post):
    (choice,) = complete(call, echo=True, logprobs=1, max_tokens=2)["choices"]
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == list("abhe")
    assert logprobs["token_logprobs"] == [None, -0.25, -0.5, -1.5]
    assert logprobs["top_logprobs"][:2] == [None, {"A": -0.125, "b": -0.25}]
    assert logprobs["text_offset"] == [0, 1, 2, 3]


def test_no_tokens_and_echo_scores_a_prompt_without_generating(call: Post, engine: FakeEngine):
    answer = complete(call, echo=True, logprobs=0, max_tokens=0)
    (choice,) = answer["choices"]
    assert choice["text"] == "ab"
    assert choice["logprobs"]["token_logprobs"] == [None, -0.25]
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0
    assert engine.requests[0].sampling.max_tokens == 1


def test_without_echo_no_tokens_are_refused(call: Post):
    error = error_of(call("/v1/completions", {"prompt": "ab", "max_tokens": 0}))
    assert error["param"] == "max_tokens"


def test_logprobs_without_echo_leave_the_prompt_alone(call: Post, engine: FakeEngine):
    (choice,) = complete(call, logprobs=1, max_tokens=2)["choices"]
    assert choice["logprobs"]["tokens"] == list("he")
    assert engine.requests[0].sampling.prompt_logprobs is None


def test_a_stream_echoes_once_per_choice_before_anything_else(call: Post):
    parts = chunks_of(call, echo=True, logprobs=1, max_tokens=2, n=2)
    for index in (0, 1):
        own = [part for part in parts if part["index"] == index]
        assert own[0]["text"] == "ab"
        assert own[0]["logprobs"]["token_logprobs"] == [None, -0.25]
        assert "".join(part["text"] for part in own) == "abhe"
        offsets = [offset for part in own for offset in part["logprobs"]["text_offset"]]
        assert offsets == [0, 1, 2, 3]


def test_prompt_logprobs_have_vllms_shape(call: Post):
    (choice,) = complete(call, prompt_logprobs=1, max_tokens=1)["choices"]
    assert choice["text"] == "h"
    assert choice["prompt_logprobs"] == [
        None,
        {
            "98": {"logprob": -0.25, "rank": 9, "decoded_token": "b"},
            "65": {"logprob": -0.125, "rank": 1, "decoded_token": "A"},
        },
    ]
    assert "prompt_logprobs" not in complete(call)["choices"][0]


def test_the_larger_of_two_counts_is_asked_and_each_form_gets_its_own(
    call: Post, engine: FakeEngine
):
    fields = {"echo": True, "logprobs": 1, "prompt_logprobs": 3, "max_tokens": 1}
    (choice,) = complete(call, **fields)["choices"]
    assert engine.requests[0].sampling.prompt_logprobs == 3
    assert len(choice["prompt_logprobs"][1]) == 4
    assert choice["logprobs"]["top_logprobs"][1] == {"A": -0.125, "b": -0.25}


def test_a_chat_answer_has_them_beside_its_choices(call: Post, engine: FakeEngine):
    body = {"messages": [{"role": "user", "content": "hi"}], "prompt_logprobs": 0}
    answer = call("/v1/chat/completions", body).json()
    assert len(answer["prompt_logprobs"]) == len(engine.requests[0].tokens)
    assert answer["prompt_logprobs"][0] is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"echo": True, "max_tokens": 0, "stream": True}, "stream"),
        ({"echo": "yes"}, "echo"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call: Post, fields: dict[str, object], param: str):
    assert error_of(call("/v1/completions", {"prompt": "ab", **fields}))["param"] == param


def test_the_served_numbers_are_those_of_the_library(client: openai.OpenAI):
    options = {"model": "tiny", "prompt": PROMPT, "temperature": 0}
    scored = client.completions.create(**options, echo=True, logprobs=0, max_tokens=0)
    assert scored.choices[0].text == PROMPT
    logprobs = scored.choices[0].logprobs.token_logprobs
    assert logprobs[0] is None
    assert logprobs[1:] == pytest.approx(make_llm().score([PROMPT])[0], abs=1e-4)
    assert scored.usage.completion_tokens == 0
    longer = client.completions.create(**options, echo=True, logprobs=2, max_tokens=5)
    assert longer.choices[0].text.startswith(PROMPT)
    assert longer.choices[0].logprobs.token_logprobs[: len(logprobs)] == pytest.approx(logprobs)
    extra = client.completions.create(**options, max_tokens=1, extra_body={"prompt_logprobs": 2})
    entries = extra.choices[0].model_extra["prompt_logprobs"]
    assert entries[0] is None
    pairs = zip(tokenizer().encode(PROMPT)[1:], entries[1:], strict=True)
    found = [entry[str(token)]["logprob"] for token, entry in pairs]
    assert found == pytest.approx(logprobs[1:], abs=1e-4)
