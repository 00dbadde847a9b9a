"""The server in front of the real engine with a tiny random model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.engine.support import make_llm, model, tokenizer
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.serve.limits import ServerConfig
from weft.serve.local import create_engine_app
from weft.serve.server import BackgroundServer
from weft.spec.sampling import SamplingParams

MESSAGES = [{"role": "user", "content": "weave a cloth"}]
GREEDY = {"temperature": 0.0, "max_tokens": 12}


@pytest.fixture
def engine() -> Iterator[AsyncEngine]:
    config = EngineConfig(num_blocks=64, block_size=4, max_num_sequences=8, max_waiting=64)
    engine = AsyncEngine(model(), tokenizer(), config)
    yield engine
    engine.shutdown()


@pytest.fixture
def server(engine: AsyncEngine) -> Iterator[BackgroundServer]:
    config = ServerConfig(port=0)
    app = create_engine_app(engine, tokenizer(), "tiny", config)
    with BackgroundServer(app, config) as server:
        yield server


@pytest.fixture
def client(server: BackgroundServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_served_text_is_that_of_the_library(client: openai.OpenAI):
    prompt = "the quick brown"
    (direct,) = make_llm().generate([prompt], SamplingParams(**GREEDY, logprobs=2))
    served = client.completions.create(model="tiny", prompt=prompt, logprobs=2, **GREEDY)
    choice = served.choices[0]
    assert choice.text == direct.text
    assert choice.finish_reason == direct.finish_reason
    assert choice.logprobs.token_logprobs == pytest.approx(direct.logprobs, abs=1e-5)
    assert served.usage.completion_tokens == len(direct.tokens)


def test_streamed_and_whole_answers_are_the_same(client: openai.OpenAI):
    def ask(**options: object):
        return client.chat.completions.create(
            model="tiny", messages=MESSAGES, seed=3, max_tokens=40, **options
        )

    whole = ask(logprobs=True, top_logprobs=1)
    with ask(stream=True) as stream:
        parts = [chunk.choices[0] for chunk in stream]
    assert "".join(part.delta.content or "" for part in parts) == whole.choices[0].message.content
    assert parts[-1].finish_reason == whole.choices[0].finish_reason
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens


def test_the_choices_of_one_seed_differ_and_repeat(client: openai.OpenAI):
    def texts() -> list[str]:
        answer = client.completions.create(
            model="tiny", prompt="to weave", n=4, seed=5, max_tokens=16
        )
        return [choice.text for choice in answer.choices]

    first = texts()
    assert len(set(first)) > 1
    assert texts() == first


def test_the_second_question_finds_the_first_in_the_cache(client: openai.OpenAI):
    def cached() -> int:
        answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=1)
        return answer.usage.prompt_tokens_details.cached_tokens

    assert cached() == 0
    assert cached() >= 4


def test_special_tokens_in_a_message_are_text(client: openai.OpenAI, server: BackgroundServer):
    messages = [{"role": "user", "content": "<|im_end|>"}]
    tokens = httpx.post(f"{server.url}/tokenize", json={"messages": messages}).json()["tokens"]
    end = tokenizer().token_id("<|im_end|>")
    assert tokens.count(end) == 1


def test_a_prompt_beyond_the_context_is_400(client: openai.OpenAI):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt=[5] * 128, max_tokens=1)
    assert caught.value.code == "context_length_exceeded"
    assert "128" in str(caught.value)


def test_a_client_that_leaves_frees_its_blocks(client: openai.OpenAI, engine: AsyncEngine):
    options = {"extra_body": {"ignore_eos": True}, "stream": True, "max_tokens": 100}
    with client.completions.create(model="tiny", prompt="to weave", n=8, **options) as stream:
        next(iter(stream))
    _until(lambda: engine.num_unfinished == 0)
    engine.core.scheduler.check()
    assert client.completions.create(model="tiny", prompt="again", **GREEDY).choices


def test_metrics_and_stats_tell_what_happened(client: openai.OpenAI, server: BackgroundServer):
    answer = client.completions.create(model="tiny", prompt="the quick brown fox", **GREEDY)
    text = httpx.get(f"{server.url}/metrics").text
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values["weft_generation_tokens_total"] == answer.usage.completion_tokens
    assert values["weft_prompt_tokens_total"] == answer.usage.prompt_tokens
    assert values["weft_prefix_cache_queries_total"] == answer.usage.prompt_tokens
    assert values["weft_num_requests_running"] == 0
    stats = httpx.get(f"{server.url}/v1/stats").json()
    assert stats["max_context"] == 128
    assert stats["chat"] is True


def test_a_closed_engine_is_unhealthy_and_503(
    client: openai.OpenAI, engine: AsyncEngine, server: BackgroundServer
):
    assert httpx.get(f"{server.url}/health").status_code == 200
    engine.shutdown()
    assert httpx.get(f"{server.url}/health").status_code == 503
    with pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(model="tiny", prompt="a")
    assert caught.value.status_code == 503
    assert httpx.get(f"{server.url}/metrics").status_code == 200


def _until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, "the engine still has work"
        time.sleep(0.01)


HARD_BODIES: list[dict[str, object]] = [
    {"seed": 2**70},
    {"seed": -1},
    {"max_tokens": 10**30},
    {"priority": -(10**30)},
    {"stop_token_ids": [-1, 10**30]},
    {"min_tokens": 10, "stop_token_ids": [10**30]},
    {"top_k": 10**30},
    {"top_k": 2**63 - 1, "seed": 2**63 - 1, "min_tokens": 2**63 - 1, "max_tokens": 2**63 - 1},
    {"top_k": 2**63 - 1, "seed": -(2**63), "stop_token_ids": [2**63 - 1]},
    {"cache_salt": "\ud800"},
    {"stop": ["\ud800", "x"]},
    {"logprobs": 20},
    {"prompt": "\ud800"},
    {"prompt": "\x00"},
    {"min_p": 1.0, "temperature": 1e-300},
    {"temperature": 1e-45, "top_p": 1e-300},
    {"repetition_penalty": 100.0, "frequency_penalty": -2.0},
    {"guided_regex": "\ud800"},
    {"guided_regex": "((a{1000}){1000}){1000}"},
    {"guided_regex": "(" * 10**4 + "a" + ")" * 10**4},
    {"guided_choice": ["\ud800"]},
    {"guided_choice": ["\x00"]},
    {"guided_json": {"const": "\ud800"}},
    {"guided_json": '{"items":' * 10**4 + "{}" + "}" * 10**4},
    {"guided_json": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9}},
    {"guided_json": {"$ref": "#"}},
    {"guided_grammar": "start: start"},
    {"guided_grammar": "root ::= " + "(" * 10**4 + '"a"' + ")" * 10**4},
    {"guided_grammar": 'start: "a" @part0'},
]


def test_no_body_stops_the_engine(server: BackgroundServer):
    def post(body: dict[str, object]) -> httpx.Response:
        headers = {"content-type": "application/json"}
        url = f"{server.url}/v1/completions"
        return httpx.post(url, content=json.dumps(body), headers=headers, timeout=30)

    for fields in HARD_BODIES:
        response = post({"prompt": "the quick", "max_tokens": 3} | fields)
        assert response.status_code in (200, 400), (fields, response.text)
    assert post({"prompt": "the quick", "max_tokens": 3}).status_code == 200
    assert httpx.get(f"{server.url}/health").status_code == 200
