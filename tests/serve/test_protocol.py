from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import RequestError
from weft.serve.protocol import ChatBody, CompletionBody, parse
from weft.spec.sampling import SamplingParams


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def completion(**fields: object) -> CompletionBody:
    return parse(CompletionBody, json.dumps({"prompt": "a", **fields}).encode())


def refusal(model: type, value: object) -> RequestError:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(RequestError) as caught:
        parse(model, body).to_sampling(encode)
    return caught.value


def test_defaults_are_those_of_sampling_params_except_openais_completion_length():
    assert completion().to_sampling(encode) == SamplingParams(max_tokens=16)


def test_every_sampling_field_reaches_the_engine():
    fields = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "seed": 7,
        "presence_penalty": 0.2,
        "frequency_penalty": -0.3,
        "repetition_penalty": 1.1,
        "min_tokens": 2,
        "max_tokens": 9,
        "ignore_eos": True,
        "logprobs": 3,
        "prompt_logprobs": 2,
    }
    body = completion(**fields, stop=["x", "y"], stop_token_ids=[4])
    expected = SamplingParams(**fields, stop=("x", "y"), stop_token_ids=(4,))
    assert body.to_sampling(encode) == expected


def test_null_means_absent():
    body = completion(temperature=None, stop=None, max_tokens=None, n=None, tools=None)
    assert body.to_sampling(encode) == SamplingParams(max_tokens=16)
    assert body.n == 1


@pytest.mark.parametrize("top_k", [0, -1])
def test_other_servers_spellings_of_all_tokens_are_understood(top_k: int):
    assert completion(top_k=top_k).to_sampling(encode).top_k is None


def test_an_unknown_field_is_refused_with_the_nearest_valid_one():
    error = refusal(CompletionBody, {"prompt": "a", "temprature": 1})
    assert error.param == "temprature"
    assert "unknown field 'temprature'" in str(error)
    assert "did you mean 'temperature'?" in str(error)


def test_an_unknown_nested_field_is_refused_with_the_nearest_of_its_level():
    body = {"messages": [{"role": "user", "content": "a", "contant": "b"}]}
    error = refusal(ChatBody, body)
    assert error.param == "messages.0.contant"
    assert "did you mean 'content'?" in str(error)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prediction", {"type": "content", "content": "a"}),
        ("best_of", 3),
    ],
)
def test_a_field_that_cannot_be_honoured_is_refused_not_ignored(field: str, value: object):
    error = refusal(CompletionBody, {"prompt": "a", field: value})
    assert error.param == field
    assert "not supported" in str(error)


@pytest.mark.parametrize(
    ("field", "value"),
    [("response_format", {"type": "text"}), ("best_of", 1)],
)
def test_an_unsupported_field_that_asks_for_nothing_is_accepted(field: str, value: object):
    assert completion(**{field: value}).prompt == "a"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 101),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -2),
        ("min_p", 2),
        ("max_tokens", 0),
        ("presence_penalty", 2.5),
        ("logprobs", 21),
        ("stop", [""]),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object):
    error = refusal(CompletionBody, {"prompt": "a", field: value})
    assert error.param == field


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", "0.5"), ("max_tokens", 1.5), ("stream", "yes"), ("prompt", {"a": 1})],
)
def test_a_wrong_type_is_refused_by_name(field: str, value: object):
    error = refusal(CompletionBody, {"prompt": "a", field: value})
    assert error.param == field


def test_a_wrong_prompt_type_says_what_is_possible():
    error = refusal(CompletionBody, {"prompt": 5})
    assert "prompt is 5" in str(error)
    assert "a list of token ids" in str(error)


def test_a_missing_field_is_named():
    assert refusal(ChatBody, {"model": "x"}).param == "messages"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"nul", b'"text"', b"\xff\xfe"])
def test_what_is_not_a_json_object_is_refused(body: bytes):
    refusal(CompletionBody, body)


def test_both_names_of_the_length_must_agree():
    messages = [{"role": "user", "content": "a"}]
    body = {"messages": messages, "max_tokens": 3, "max_completion_tokens": 4}
    assert refusal(ChatBody, body).param == "max_tokens"
    body["max_tokens"] = 4
    assert parse(ChatBody, json.dumps(body).encode()).to_sampling(encode).max_tokens == 4


def test_top_logprobs_need_logprobs():
    body = {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}
    assert refusal(ChatBody, body).param == "top_logprobs"


def test_stream_options_need_a_stream():
    error = refusal(CompletionBody, {"prompt": "a", "stream_options": {"include_usage": True}})
    assert error.param == "stream_options"


def test_content_parts_are_joined_and_developer_is_system():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {"messages": [{"role": "developer", "content": parts}]}
    message = parse(ChatBody, json.dumps(body).encode()).messages[0]
    assert message.plain() == {"role": "system", "content": "a\nb"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*ChatBody.model_fields, *CompletionBody.model_fields, "tools", "x"])


@settings(max_examples=50)
@given(st.dictionaries(FIELDS, JSON, max_size=6))
def test_any_json_is_parsed_or_refused_and_nothing_else_is_raised(value: dict[str, object]):
    for model in (ChatBody, CompletionBody):
        with contextlib.suppress(RequestError):
            parse(model, json.dumps(value).encode()).to_sampling(encode)


def test_biases_and_bad_words_become_tokens():
    body = completion(logit_bias={"5": -1.5}, bad_words=["no"], allowed_token_ids=[1, 2])
    sampling = body.to_sampling(encode)
    assert sampling.logit_bias == ((5, -1.5),)
    assert sampling.bad_words == ((110, 111), (32, 110, 111))
    assert sampling.allowed_token_ids == (1, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [("logit_bias", {"five": 1.0}), ("logit_bias", {"5": 101.0}), ("bad_words", [" "])],
)
def test_lists_of_tokens_are_checked(field: str, value: object):
    with pytest.raises(RequestError) as caught:
        completion(**{field: value}).to_sampling(encode)
    assert caught.value.param == field
