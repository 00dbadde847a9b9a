from __future__ import annotations

import pytest

from tests.serve.conftest import BuildApp, Post
from tests.serve.fakes import ByteTokenizer, FakeEngine
from weft.core.errors import ConfigError, ContextLengthError, QueueFullError
from weft.serve.limits import ServerConfig
from weft.spec.request import FinishReason

MESSAGES = [{"role": "user", "content": "hi"}]


def error_of(response) -> dict:
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_completion_has_openais_shape(call: Post):
    answer = call("/v1/completions", {"model": "tiny", "prompt": "abc"}).json()
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {"index": 0, "text": "hello", "logprobs": None, "finish_reason": "stop"}
    ]
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_chat_has_openais_shape(call: Post):
    response = call("/v1/chat/completions", {"messages": MESSAGES})
    answer = response.json()
    assert answer["object"] == "chat.completion"
    assert response.headers["x-request-id"] == answer["id"]
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]


def test_max_tokens_ends_with_length(call: Post):
    answer = call("/v1/completions", {"prompt": "a", "max_tokens": 2}).json()
    assert answer["choices"][0]["text"] == "he"
    assert answer["choices"][0]["finish_reason"] == "length"


def test_several_prompts_and_choices_are_separate_sequences(call: Post, engine: FakeEngine):
    answer = call("/v1/completions", {"prompt": ["a", "bcd"], "n": 2, "seed": 1}).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [request.sequence for request in engine.requests] == [0, 1, 0, 1]
    assert len({request.id for request in engine.requests}) == 4
    assert answer["usage"]["prompt_tokens"] == 4
    assert answer["usage"]["completion_tokens"] == 20


def test_a_text_prompt_begins_as_the_tokenizer_says(
    build_app: BuildApp, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ByteTokenizer, "before", (256,))
    call = Post(build_app())
    call("/v1/completions", {"prompt": "ab"})
    call("/v1/completions", {"prompt": [97]})
    call("/score", {"text_1": "a", "text_2": "b"})
    assert [request.tokens for request in engine.requests] == [
        (256, 97, 98),
        (97,),
        (256, 97, 98),
    ]
    assert call("/tokenize", {"prompt": "a"}).json()["tokens"] == [256, 97]


def test_token_id_prompts_pass_through(call: Post, engine: FakeEngine):
    call("/v1/completions", {"prompt": [1, 2, 257]})
    call("/v1/completions", {"prompt": [[5], [6, 7]]})
    assert [request.tokens for request in engine.requests] == [(1, 2, 257), (5,), (6, 7)]


def test_who_asks_is_the_tenant_that_shares_are_counted_by(call: Post, engine: FakeEngine):
    call("/v1/completions", {"prompt": "a", "user": "alice", "n": 2})
    call("/v1/chat/completions", {"messages": MESSAGES})
    assert [request.tenant for request in engine.requests] == ["alice", "alice", ""]


def test_chat_prompt_is_rendered_with_the_assistant_turn_open(call: Post, engine: FakeEngine):
    call("/v1/chat/completions", {"messages": MESSAGES})
    assert engine.requests[0].tokens == (256, *b"user\nhi", 257, 256, *b"assistant\n")


def test_cached_tokens_are_reported(call: Post, engine: FakeEngine):
    engine.num_cached_tokens = 2
    usage = call("/v1/completions", {"prompt": "abc", "n": 2}).json()["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 2}


def test_token_ids_are_returned_on_request(call: Post):
    body = {"prompt": "ab", "return_token_ids": True}
    choice = call("/v1/completions", body).json()["choices"][0]
    assert choice["token_ids"] == list(b"hello")
    assert choice["prompt_token_ids"] == [97, 98]


def test_a_prompt_that_cannot_fit_gets_the_numbers(build_app: BuildApp, engine: FakeEngine):
    response = Post(build_app(max_context=10))(
        "/v1/completions", {"prompt": "abcdef", "max_tokens": 7}
    )
    error = error_of(response)
    assert response.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "prompt"
    for number in ("10", "6", "7", "13"):
        assert number in error["message"]
    assert engine.requests == []


def test_the_default_length_does_not_make_a_prompt_too_long(build_app: BuildApp):
    assert (
        Post(build_app(max_context=10))("/v1/completions", {"prompt": "a" * 9}).status_code == 200
    )
    assert (
        Post(build_app(max_context=10))("/v1/completions", {"prompt": "a" * 10}).status_code == 400
    )


def test_the_engines_own_length_refusal_has_the_same_code(call: Post, engine: FakeEngine):
    engine.refuse = ContextLengthError("the KV cache holds 8 tokens")
    assert error_of(call("/v1/completions", {"prompt": "a"}))["code"] == "context_length_exceeded"


def test_a_full_queue_is_429_with_retry_after(call: Post, engine: FakeEngine):
    engine.refuse = QueueFullError("1024 requests are waiting", retry_after_s=3)
    for stream in (False, True):
        response = call("/v1/completions", {"prompt": "a", "stream": stream})
        assert response.status_code == 429
        assert response.headers["retry-after"] == "3"
        assert error_of(response)["type"] == "rate_limit_error"


@pytest.mark.parametrize(
    ("ending", "status"),
    [(FinishReason.ERROR, 500), (FinishReason.TIMEOUT, 504), (FinishReason.ABORT, 503)],
)
def test_an_ending_that_is_no_answer_is_an_error(
    call: Post, engine: FakeEngine, ending: FinishReason, status: int
):
    engine.ending, engine.error = ending, "the grammar failed"
    response = call("/v1/completions", {"prompt": "a"})
    assert response.status_code == status
    assert "the grammar failed" in error_of(response)["message"]


def test_one_failing_sibling_aborts_the_others(call: Post, engine: FakeEngine):
    engine.ending = FinishReason.ERROR
    assert call("/v1/completions", {"prompt": "a", "n": 3}).status_code == 500
    assert engine.running == set()


def test_an_unexpected_exception_hides_its_details(call: Post, engine: FakeEngine):
    engine.refuse = ValueError("secret path")
    response = call("/v1/completions", {"prompt": "a"})
    assert response.status_code == 500
    assert "secret" not in response.text


def test_an_unknown_model_is_404(call: Post):
    error = error_of(call("/v1/completions", {"model": "gpt-9", "prompt": "a"}))
    assert error["code"] == "model_not_found"
    assert "'tiny'" in error["message"]


def test_models_lists_the_one_model(call: Post):
    (model,) = call("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("tiny", "model", 512)
    assert call("/v1/models/tiny").json() == model
    assert call("/v1/models/other").status_code == 404


def test_an_unknown_route_names_the_nearest(call: Post):
    response = call("/v1/chat/completion", {"messages": MESSAGES})
    assert response.status_code == 404
    assert "did you mean '/v1/chat/completions'?" in error_of(response)["message"]


def test_a_wrong_method_says_which_is_right(call: Post):
    response = call("/v1/completions")
    assert response.status_code == 405
    assert "POST" in error_of(response)["message"]


@pytest.mark.parametrize("n", [0, -1, 1000])
def test_the_number_of_choices_is_limited(call: Post, n: int):
    assert error_of(call("/v1/completions", {"prompt": "a", "n": n}))["param"] == "n"


@pytest.mark.parametrize("prompt", ["", [], [[]], [300], [-1]])
def test_an_impossible_prompt_is_refused(call: Post, prompt: object):
    response = call("/v1/completions", {"prompt": prompt})
    assert response.status_code == 400
    assert error_of(response)["param"] == "prompt"


def test_no_messages_are_refused(call: Post):
    assert error_of(call("/v1/chat/completions", {"messages": []}))["param"] == "messages"


def test_without_a_chat_template_chat_is_refused_with_the_alternative(build_app: BuildApp):
    response = Post(build_app(renderer=None))("/v1/chat/completions", {"messages": MESSAGES})
    assert response.status_code == 400
    assert "/v1/completions" in error_of(response)["message"]


def test_tokenize_and_detokenize_are_inverse(call: Post):
    answer = call("/tokenize", {"prompt": "hé", "return_token_strs": True}).json()
    assert answer["count"] == 3
    assert answer["token_strs"] == ["h", "\ufffd", "\ufffd"]
    assert call("/detokenize", {"tokens": answer["tokens"]}).json() == {"prompt": "hé"}
    assert call("/tokenize", {"messages": MESSAGES}).json()["tokens"][0] == 256
    assert call("/tokenize", {}).status_code == 400


def test_stats_carry_what_the_page_shows(call: Post):
    call("/v1/completions", {"prompt": "a"})
    stats = call("/v1/stats").json()
    assert stats["model"] == "tiny"
    assert stats["tokens_per_s"] > 0
    assert stats["kv_usage"] == 0.25
    assert stats["prefix_hit_rate"] == 0.4
    assert stats["chat"] is True


def test_health_follows_the_engine_and_the_drain(build_app: BuildApp, engine: FakeEngine):
    app = build_app()
    call = Post(app)
    assert call("/health").status_code == 200
    engine.healthy = False
    assert call("/health").status_code == 503
    assert call("/v1/completions", {"prompt": "a"}).status_code == 503
    engine.healthy = True
    app.state.service.draining = True
    assert call("/health").json() == {"status": "draining"}
    response = call("/v1/completions", {"prompt": "a"})
    assert response.status_code == 503
    assert "retry-after" in response.headers


def test_a_body_that_is_too_large_is_413(build_app: BuildApp):
    call = Post(build_app(ServerConfig(max_body_bytes=100)))
    assert call("/v1/completions", {"prompt": "a"}).status_code == 200
    response = call("/v1/completions", {"prompt": "a" * 100})
    assert response.status_code == 413
    assert "100" in error_of(response)["message"]


def test_a_large_body_is_refused_even_when_it_hides_its_length(build_app: BuildApp):
    async def parts():
        yield b'{"prompt": "'
        yield b"a" * 200

    call = Post(build_app(ServerConfig(max_body_bytes=100)))
    headers = {"content-type": "application/json"}
    response = call("/v1/completions", value=..., headers=headers, content=parts())
    assert response.status_code == 413


def test_a_form_post_from_another_site_is_refused(call: Post):
    response = call(
        "/v1/completions", value=..., content="{}", headers={"content-type": "text/plain"}
    )
    assert response.status_code == 415


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/v1/stats", "/nothing"])
def test_the_api_key_protects_everything_but_health(build_app: BuildApp, path: str):
    call = Post(build_app(ServerConfig(api_key="s3cret")))
    assert call("/health").status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}):
        response = call(path, headers=headers)
        assert response.status_code == 401
        assert error_of(response)["code"] == "invalid_api_key"
    assert call(path, headers={"authorization": "Bearer s3cret"}).status_code in (200, 404)


def test_a_loopback_server_answers_for_loopback_names_only(build_app: BuildApp):
    call = Post(build_app())
    assert call("/health", headers={"host": "localhost:8000"}).status_code == 200
    assert call("/health", headers={"host": "[::1]:8000"}).status_code == 200
    assert call("/health", headers={"host": "evil.example"}).status_code == 421
    open_app = build_app(ServerConfig(host="0.0.0.0"))
    assert Post(open_app)("/health", headers={"host": "any.example"}).status_code == 200


def test_cross_origin_calls_need_permission(build_app: BuildApp):
    origin = {"origin": "http://page.example"}
    assert "access-control-allow-origin" not in Post(build_app())("/health", headers=origin).headers
    app = build_app(ServerConfig(allowed_origins=("http://page.example",)))
    answer = Post(app)("/health", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "http://page.example"


@pytest.mark.parametrize("fields", [{"port": 70000}, {"api_key": " "}, {"max_choices": 0}])
def test_a_wrong_configuration_is_refused(fields: dict[str, object]):
    with pytest.raises(ConfigError):
        ServerConfig(**fields)
