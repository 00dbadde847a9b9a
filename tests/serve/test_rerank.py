"""Scores of pairs, by an encoder's cosine and by a decoder's likelihood."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.checkpoint.test_sentence import embedder
from tests.engine.support import make_llm, model, tokenizer
from tests.serve.conftest import BuildApp, Post
from tests.serve.fakes import FakeEngine
from weft.engine.async_embedder import AsyncEmbedder
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.serve.limits import ServerConfig
from weft.serve.local import create_encoder_app, create_engine_app

DOCUMENTS = ["c c c", "a b c", "b"]


@pytest.fixture
def vectors() -> Iterator[AsyncEmbedder]:
    made = AsyncEmbedder(embedder())
    yield made
    made.shutdown()


@pytest.fixture
def encoder_call(vectors: AsyncEmbedder) -> Post:
    return Post(create_encoder_app(vectors, "bert", ServerConfig(max_inputs=8)))


@pytest.fixture
def decoder_call() -> Iterator[Post]:
    config = EngineConfig(num_blocks=64, block_size=4, max_num_sequences=8, max_waiting=4)
    engine = AsyncEngine(model(), tokenizer(), config)
    limits = ServerConfig(max_choices=3, max_inputs=8)
    yield Post(create_engine_app(engine, tokenizer(), "tiny", limits))
    assert engine.num_unfinished == 0
    engine.shutdown()


def error_of(response: httpx.Response) -> dict:
    assert response.status_code == 400, response.text
    return response.json()["error"]


def likelihood(first: str, second: str) -> float:
    before, after = tokenizer().encode(first), tokenizer().encode(second)
    logprobs = make_llm().score([[*before, *after]])[0]
    return sum(logprobs[-len(after) :]) / len(after)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_an_encoder_ranks_by_cosine(encoder_call: Post, vectors: AsyncEmbedder, path: str):
    body = {"query": "a b", "documents": DOCUMENTS}
    answer = encoder_call(path, body).json()
    cosines = (vectors.embedder.embed(DOCUMENTS) @ vectors.embedder.embed(["a b"])[0]).tolist()
    order = sorted(range(3), key=lambda index: -cosines[index])
    assert [result["index"] for result in answer["results"]] == order
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == pytest.approx([cosines[index] for index in order], abs=1e-5)
    assert answer["results"][0]["document"] == {"text": DOCUMENTS[order[0]]}
    assert answer["usage"]["total_tokens"] == 4 + 5 + 5 + 3
    assert answer["id"].startswith("rerank-")


def test_the_best_few_come_without_their_texts_on_request(encoder_call: Post):
    documents = [{"text": text} for text in DOCUMENTS]
    body = {"query": "a b", "documents": documents, "top_n": 1, "return_documents": False}
    (result,) = encoder_call("/rerank", body).json()["results"]
    assert result.keys() == {"index", "relevance_score"}
    assert len(encoder_call("/rerank", body | {"top_n": 0}).json()["results"]) == 3


def test_equal_documents_stay_in_order(encoder_call: Post):
    body = {"query": "a", "documents": ["b", "b", "b"]}
    results = encoder_call("/rerank", body).json()["results"]
    assert [result["index"] for result in results] == [0, 1, 2]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    ("one", "other", "pairs"),
    [
        ("a", "b", ["ab"]),
        ("a", ["b", "c"], ["ab", "ac"]),
        (["a", "b"], "c", ["ac", "bc"]),
        (["a", "b"], ["b", "c"], ["ab", "bc"]),
    ],
)
def test_scores_come_in_the_order_of_the_pairs(
    encoder_call: Post, vectors: AsyncEmbedder, path: str, one, other, pairs
):
    answer = encoder_call(path, {"text_1": one, "text_2": other}).json()
    vector = dict(zip("abc", vectors.embedder.embed(list("abc")), strict=True))
    expected = [float(vector[first] @ vector[second]) for first, second in pairs]
    assert [item["score"] for item in answer["data"]] == pytest.approx(expected, abs=1e-5)
    assert [item["index"] for item in answer["data"]] == list(range(len(pairs)))
    assert answer["data"][0]["object"] == "score"


def test_a_decoder_scores_the_mean_logprob_of_the_second_text(decoder_call: Post):
    others = ["quick brown fox", "cloth", "lazy dog", "weft", "warp", "again", "dog", "fox"]
    answer = decoder_call("/score", {"text_1": "the", "text_2": others}).json()
    expected = [likelihood("the", other) for other in others]
    assert [item["score"] for item in answer["data"]] == pytest.approx(expected, abs=1e-4)
    num_tokens = sum(len(tokenizer().encode("the")) + len(tokenizer().encode(x)) for x in others)
    assert answer["usage"]["prompt_tokens"] == num_tokens


def test_a_decoder_ranks_by_how_likely_a_document_makes_the_query(decoder_call: Post):
    documents = ["to weave", "the lazy dog", "漢字"]
    answer = decoder_call("/rerank", {"query": "cloth", "documents": documents}).json()
    expected = [likelihood(f"{document}\n", "cloth") for document in documents]
    for result in answer["results"]:
        assert result["relevance_score"] == pytest.approx(expected[result["index"]], abs=1e-4)
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)


def test_a_request_with_many_pairs_does_not_fill_the_queue(build_app: BuildApp, engine: FakeEngine):
    call = Post(build_app(ServerConfig(max_choices=2)))
    data = call("/score", {"text_1": "ab", "text_2": ["c", "de", "f"]}).json()["data"]
    assert [item["score"] for item in data] == [-0.5, -0.625, -0.5]
    assert [request.sampling.max_tokens for request in engine.requests] == [1, 1, 1]
    assert len({request.id for request in engine.requests}) == 3


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        ("/score", {"text_1": ["a", "b"], "text_2": ["a"] * 3}, "text_2", "equally many"),
        ("/score", {"text_1": [], "text_2": "a"}, "text_1", "0 texts"),
        ("/score", {"text_1": "a"}, "text_2", "missing"),
        ("/rerank", {"query": "a", "documents": []}, "documents", "0 texts"),
        ("/rerank", {"query": "a", "documents": ["a"] * 9}, "documents", "8"),
        ("/rerank", {"query": "a", "documents": ["a"], "top_n": -1}, "top_n", "1 or more"),
        ("/rerank", {"query": "a", "documents": ["a " * 200]}, "documents", "shorten"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(
    encoder_call: Post, decoder_call: Post, path: str, body: dict, param: str, message: str
):
    for call in (encoder_call, decoder_call):
        error = error_of(call(path, body))
        assert error["param"] == param
        assert message in error["message"]


def test_a_decoder_refuses_empty_texts_and_an_encoders_fields(decoder_call: Post):
    assert error_of(decoder_call("/score", {"text_1": "", "text_2": "a"}))["param"] == "text_1"
    body = {"text_1": "a", "text_2": "a", "truncate_prompt_tokens": 5}
    assert error_of(decoder_call("/score", body))["param"] == "truncate_prompt_tokens"
