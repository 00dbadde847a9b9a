"""Perplexity and bits per byte of held-out documents.

How documents are cut, and what counts, is stated in ``weft.evals.windows``.

Perplexity is per token and not comparable between tokenizers; bits per byte are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from weft.core.errors import DataError
from weft.data.batch import Batch
from weft.data.document import Document
from weft.data.shards import TokenDocument
from weft.evals.windows import batches, check_windows, document_windows
from weft.models.decoder import Decoder
from weft.models.heads import cross_entropy_sum
from weft.nn.context import StepContext
from weft.text.tokenizer import Tokenizer

MAX_TOKENS = 8192


class DocumentStore(Protocol):
    """Documents by index, such as ``weft.data.shards.TokenShards``."""

    @property
    def num_documents(self) -> int: ...

    @property
    def document_bytes(self) -> np.ndarray: ...

    def document(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Perplexity:
    """What a model pays for a text.

    Attributes:
        nll_sum: Summed negative log-likelihood, nats.
        num_tokens: Tokens predicted.
        num_bytes: UTF-8 bytes of the text.
        num_documents: Documents.
    """

    nll_sum: float
    num_tokens: int
    num_bytes: int
    num_documents: int

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood."""
        return self.nll_sum / self.num_tokens

    @property
    def perplexity(self) -> float:
        """exp of the mean: how many equally likely tokens would be as hard to guess."""
        return perplexity(self.nll_sum, self.num_tokens)

    @property
    def bits_per_byte(self) -> float:
        """Bits spent on all tokens over the bytes they stand for."""
        return self.nll_sum / math.log(2) / self.num_bytes


def perplexity(nll_sum: float, num_tokens: int) -> float:
    """Return exp(mean negative log-likelihood); infinity where it overflows.

    Drawing one of 81 balls is as hard to guess as its perplexity says:

    >>> round(perplexity(-math.log(1 / 81), 1), 6)
    81.0
    """
    mean = nll_sum / num_tokens
    return math.exp(mean) if mean < 700 else math.inf


def measure_perplexity(
    model: Decoder,
    documents: DocumentStore | Iterable[TokenDocument],
    *,
    window: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
) -> Perplexity:
    """Measure a model on documents by the rule of ``weft.evals.windows``.

    Args:
        model: Used as it is.
        documents: Token shards, or token documents one by one.
        window: Positions of a window; none is the model's context.
        stride: Positions it advances; none is the window.
        max_tokens: Stop after the document in which this many tokens were reached; none reads all.

    Raises:
        ConfigError: a window or stride that does not fit.
        DataError: nothing to predict.
    """
    window = window or model.spec.context_length
    stride = stride or window
    check_windows(window, stride, model.spec.context_length)
    totals = _Totals()
    pieces = _windows(_limited(_token_documents(documents), max_tokens), window, stride, totals)
    nll_sum, num_tokens = 0.0, 0
    with torch.inference_mode():
        for batch in batches(pieces, MAX_TOKENS):
            loss_sum, count = _loss(model, batch)
            nll_sum, num_tokens = nll_sum + loss_sum, num_tokens + count
    if num_tokens == 0:
        raise DataError(
            "the documents have no token to predict",
            fix="give documents of at least two tokens",
        )
    return Perplexity(nll_sum, num_tokens, totals.num_bytes, totals.num_documents)


def bits_per_byte(
    model: Decoder,
    documents: DocumentStore | Iterable[TokenDocument],
    *,
    window: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
) -> float:
    """Return only the bits per byte of ``measure_perplexity``."""
    measured = measure_perplexity(
        model, documents, window=window, stride=stride, max_tokens=max_tokens
    )
    return measured.bits_per_byte


def encode_documents(
    documents: Iterable[Document], tokenizer: Tokenizer
) -> Iterator[TokenDocument]:
    """Tokenize documents the way corpora are: begin token, text, end token."""
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    end = list(tokenizer.eos_ids[:1])
    for document in documents:
        tokens = [*begin, *tokenizer.encode(document.text), *end]
        yield TokenDocument(tokens, document.num_bytes)


@dataclass
class _Totals:
    num_bytes: int = 0
    num_documents: int = 0


def _token_documents(
    documents: DocumentStore | Iterable[TokenDocument],
) -> Iterator[TokenDocument]:
    if isinstance(documents, Iterable):
        yield from documents
        return
    for index in range(documents.num_documents):
        yield TokenDocument(documents.document(index), int(documents.document_bytes[index]))


def _limited(documents: Iterable[TokenDocument], max_tokens: int | None) -> Iterator[TokenDocument]:
    num_tokens = 0
    for document in documents:
        yield document
        num_tokens += len(document.tokens)
        if max_tokens is not None and num_tokens >= max_tokens:
            return


def _windows(
    documents: Iterable[TokenDocument], window: int, stride: int, totals: _Totals
) -> Iterator[Batch]:
    """Yield one piece per window: its tokens, and labels where it predicts first."""
    for document in documents:
        totals.num_bytes += document.num_bytes
        totals.num_documents += 1
        tokens = np.asarray(document.tokens, dtype=np.int64)
        yield from document_windows(tokens, window, stride)


def _loss(model: Decoder, batch: Batch) -> tuple[float, int]:
    device = model.device
    ctx = StepContext.packed(batch.lengths, device=device)
    hidden_TD = model(torch.from_numpy(batch.tokens_T).to(device), ctx)
    loss_sum, count = cross_entropy_sum(
        model, hidden_TD, torch.from_numpy(batch.labels_T).to(device)
    )
    return float(loss_sum), int(count)
