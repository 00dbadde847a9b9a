"""The server of an encoder, with the official client and without."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest

from tests.checkpoint.test_sentence import CLS, SEP, embedder
from tests.serve.conftest import Post
from weft.engine.async_embedder import AsyncEmbedder
from weft.serve.limits import ServerConfig
from weft.serve.local import create_encoder_app
from weft.serve.server import BackgroundServer
from weft.spec import PoolingSpec

TEXTS = ["a b c", "b", "c c a"]
LONG = "a " * 50


@pytest.fixture
def vectors() -> Iterator[AsyncEmbedder]:
    made = AsyncEmbedder(embedder(short_dims=(8, 16)))
    yield made
    made.shutdown()


@pytest.fixture
def encoder_call(vectors: AsyncEmbedder) -> Post:
    return Post(create_encoder_app(vectors, "bert", ServerConfig(max_inputs=8)))


def error_of(response: httpx.Response) -> dict:
    assert response.status_code == 400, response.text
    return response.json()["error"]


def test_the_official_client_gets_the_librarys_vectors(vectors: AsyncEmbedder):
    config = ServerConfig(port=0)
    expected = vectors.embedder.embed(TEXTS).numpy()
    with BackgroundServer(create_encoder_app(vectors, "bert", config), config) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["bert"]
            for encoding in ({}, {"encoding_format": "float"}):
                answer = client.embeddings.create(model="bert", input=TEXTS, **encoding)
                got = np.array([item.embedding for item in answer.data], dtype=np.float32)
                np.testing.assert_allclose(got, expected, atol=1e-6)
                assert [item.index for item in answer.data] == [0, 1, 2]
                assert answer.usage.prompt_tokens == answer.usage.total_tokens == 5 + 3 + 5
            short = client.embeddings.create(model="bert", input="a b c", dimensions=8)
            assert len(short.data[0].embedding) == 8
            with pytest.raises(openai.BadRequestError, match="encoder") as caught:
                client.completions.create(model="bert", prompt="a")
            assert "/v1/embeddings" in str(caught.value)


def test_base64_is_little_endian_float32(encoder_call: Post):
    plain = encoder_call("/v1/embeddings", {"input": "a b"}).json()
    packed = encoder_call("/v1/embeddings", {"input": "a b", "encoding_format": "base64"}).json()
    data = base64.b64decode(packed["data"][0]["embedding"])
    assert np.frombuffer(data, "<f4").tolist() == plain["data"][0]["embedding"]
    assert plain["object"] == "list"
    assert plain["model"] == "bert"


@pytest.mark.parametrize("value", ["a b", ["a b"], [CLS, 1, 2, SEP], [[CLS, 1, 2, SEP]]], ids=str)
def test_texts_and_token_ids_give_the_same(encoder_call: Post, value: object):
    expected = encoder_call("/v1/embeddings", {"input": ["a b"]}).json()["data"]
    assert encoder_call("/v1/embeddings", {"input": value}).json()["data"] == expected


def test_fewer_dimensions_are_the_first_ones_at_length_one(encoder_call: Post):
    (whole,) = encoder_call("/v1/embeddings", {"input": "a b"}).json()["data"]
    (short,) = encoder_call("/v1/embeddings", {"input": "a b", "dimensions": 8}).json()["data"]
    first = np.array(whole["embedding"][:8])
    np.testing.assert_allclose(short["embedding"], first / np.linalg.norm(first), atol=1e-6)
    (full,) = encoder_call("/v1/embeddings", {"input": "a b", "dimensions": 32}).json()["data"]
    assert full == whole


def test_a_model_that_does_not_normalise_is_only_cut():
    made = AsyncEmbedder(embedder(pooling=PoolingSpec("mean", normalise=False), short_dims=(8,)))
    call = Post(create_encoder_app(made, "bert"))
    (whole,) = call("/v1/embeddings", {"input": "a b"}).json()["data"]
    (short,) = call("/v1/embeddings", {"input": "a b", "dimensions": 8}).json()["data"]
    assert short["embedding"] == whole["embedding"][:8]
    made.shutdown()


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"dimensions": 9}, "dimensions", "8, 16, 32"),
        ({"dimensions": 0}, "dimensions", "8, 16, 32"),
        ({"input": LONG}, "input", "truncate_prompt_tokens: -1"),
        ({"input": []}, "input", "send 1 to 8"),
        ({"input": ["a"] * 9}, "input", "send 1 to 8"),
        ({"input": [[1], []]}, "input", "text 1 of input has no tokens"),
        ({"input": [61]}, "input", "ids are 0 to 60"),
        ({"input": [-1]}, "input", "ids are 0 to 60"),
        ({"input": 3}, "input", "a list of texts"),
        ({"encoding_format": "int8"}, "encoding_format", "base64"),
        ({"truncate_prompt_tokens": 2}, "truncate_prompt_tokens", "3 to 40"),
        ({"truncate_prompt_tokens": 41}, "truncate_prompt_tokens", "3 to 40"),
        ({"dimension": 8}, "dimension", "did you mean 'dimensions'"),
    ],
)
def test_what_cannot_be_is_refused_by_name_with_a_fix(
    encoder_call: Post, fields: dict[str, object], param: str, message: str
):
    error = error_of(encoder_call("/v1/embeddings", {"input": "a", **fields}))
    assert error["param"] == param
    assert message in error["message"]


def test_a_long_text_is_cut_on_request(encoder_call: Post):
    body = {"input": LONG, "truncate_prompt_tokens": -1}
    assert encoder_call("/v1/embeddings", body).json()["usage"]["prompt_tokens"] == 40
    ids = {"input": [1] * 50, "truncate_prompt_tokens": 10}
    assert encoder_call("/v1/embeddings", ids).json()["usage"]["prompt_tokens"] == 10


def test_a_vector_that_is_not_finite_is_an_error(encoder_call: Post, vectors: AsyncEmbedder):
    vectors.embedder.model.embed.weight.data[2] = float("nan")
    response = encoder_call("/v1/embeddings", {"input": ["a", "b"]})
    assert response.status_code == 500
    assert "text 1 is not finite" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_an_encoder_does_not_generate(encoder_call: Post, path: str):
    message = error_of(encoder_call(path, {"prompt": "a", "messages": []}))["message"]
    assert "is an encoder" in message
    assert "/v1/embeddings" in message


def test_the_other_endpoints_of_an_encoder_work(encoder_call: Post, vectors: AsyncEmbedder):
    encoder_call("/v1/embeddings", {"input": "a b"})
    assert encoder_call("/tokenize", {"prompt": "a b"}).json()["tokens"] == [CLS, 1, 2, SEP]
    assert encoder_call("/v1/models").json()["data"][0]["max_model_len"] == 40
    assert encoder_call("/v1/stats").json()["chat"] is False
    assert 'weft_prompt_tokens_total{model_name="bert"} 4.0' in encoder_call("/metrics").text
    assert encoder_call("/health").status_code == 200
    vectors.shutdown()
    assert encoder_call("/health").status_code == 503
    assert encoder_call("/v1/embeddings", {"input": "a"}).status_code == 503


def test_a_decoder_gives_no_embeddings(call: Post):
    message = error_of(call("/v1/embeddings", {"input": "a"}))["message"]
    assert "is a decoder" in message
    assert "sentence-transformers" in message


@pytest.mark.parametrize(
    "body",
    [
        b'{"input": "\\ud800"}',
        b'{"input": "\\u0000"}',
        b'{"input": [' + b"1," * 100_000 + b"1]}",
        b'{"input": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"input": [1, "a"]}',
        b'{"input": [1e400]}',
        b'{"input": [true]}',
        b'{"input": [10000000000000000000000000]}',
        b'{"input": "a", "dimensions": 10000000000000000000000000}',
        b'{"input": "a", "truncate_prompt_tokens": -2}',
        b"[]",
    ],
    ids=range(11),
)
def test_no_body_stops_the_server(encoder_call: Post, body: bytes):
    headers = {"content-type": "application/json"}
    response = encoder_call("/v1/embeddings", ..., content=body, headers=headers)
    assert response.status_code in (200, 400), response.text
    assert encoder_call("/v1/embeddings", {"input": "a"}).status_code == 200


def test_an_unknown_model_is_404(encoder_call: Post):
    assert encoder_call("/v1/embeddings", {"input": "a", "model": "x"}).status_code == 404
