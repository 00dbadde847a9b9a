from __future__ import annotations

import math

import numpy as np
import pytest

from tests.evals.support import tiny_model, tokenizer, uniform_model
from weft.core.errors import DataError
from weft.data.document import Document
from weft.data.shards import TokenDocument, write_shards
from weft.evals.loglikelihood import score_requests
from weft.evals.perplexity import bits_per_byte, encode_documents, measure_perplexity, perplexity
from weft.evals.requests import LogLikelihood

RNG = np.random.default_rng(0)
DOCUMENTS = [TokenDocument(RNG.integers(5, 260, size=n), 3 * n) for n in (40, 7, 90, 1)]


def test_uniform_model_has_the_vocabulary_as_perplexity():
    size = tokenizer().vocab_size
    found = measure_perplexity(uniform_model(), DOCUMENTS)
    assert found.perplexity == pytest.approx(size, rel=1e-5)
    assert found.num_tokens == 39 + 6 + 89
    assert found.bits_per_byte == pytest.approx(134 * math.log2(size) / (3 * 138), rel=1e-5)


def test_one_red_among_eighty_black_balls_has_perplexity_81():
    # Which of 81 balls is drawn is uniform; the red one is one of them.
    assert perplexity(-81 * math.log(1 / 81), 81) == pytest.approx(81)
    assert perplexity(-math.log(1 / 81), 1) == pytest.approx(81)


def test_perplexity_is_the_exponential_of_cross_entropy():
    probabilities = np.array([0.5, 0.25, 0.125])
    nll = -np.log(probabilities).sum()
    assert perplexity(nll, 3) == pytest.approx(4.0)  # geometric mean of 2, 4, 8
    assert perplexity(1e6, 1) == math.inf


def test_measured_loss_equals_scoring_each_document_whole():
    model = tiny_model()
    requests = [
        LogLikelihood((int(d.tokens[0]),), tuple(d.tokens[1:].tolist())) for d in DOCUMENTS[:3]
    ]
    expected = -sum(score.log_prob for score in score_requests(model, requests))
    assert measure_perplexity(model, DOCUMENTS).nll_sum == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(16, 16), (16, 4), (16, 1)])
def test_windows_score_each_token_from_the_context_they_leave_it(window, stride):
    model = tiny_model()
    (document,) = [DOCUMENTS[0]]
    expected = 0.0
    start = done = 0
    tokens = document.tokens.tolist()
    while done < len(tokens) - 1:
        stop = min(start + window, len(tokens) - 1)
        for target in range(done + 1, stop + 1):
            request = LogLikelihood(tuple(tokens[start:target]), (tokens[target],))
            expected -= score_requests(model, [request])[0].log_prob
        done, start = stop, start + stride
    found = measure_perplexity(model, [document], window=window, stride=stride)
    assert found.nll_sum == pytest.approx(expected, rel=1e-5)
    assert found.num_tokens == len(tokens) - 1


def test_shards_give_what_documents_give(tmp_path):
    shards = write_shards(tmp_path, DOCUMENTS, tokenizer_fingerprint="x", vocab_size=320, meta={})
    model = tiny_model()
    assert measure_perplexity(model, shards) == measure_perplexity(model, DOCUMENTS)


def test_token_limit_stops_after_the_document_that_reaches_it():
    found = measure_perplexity(tiny_model(), DOCUMENTS, max_tokens=41)
    assert found.num_documents == 2
    assert found.num_bytes == 3 * 47


def test_encoded_documents_begin_and_end_with_special_tokens():
    tok = tokenizer()
    (encoded,) = encode_documents([Document("the sum é", "a", {})], tok)
    assert (encoded.tokens[0], encoded.tokens[-1]) == (tok.bos_id, tok.eos_ids[0])
    assert encoded.num_bytes == len("the sum é".encode())
    assert bits_per_byte(tiny_model(), [encoded]) > 0


def test_nothing_to_predict_is_refused():
    with pytest.raises(DataError, match="no token to predict"):
        measure_perplexity(tiny_model(), [TokenDocument([5], 1)])
