"""Tiny models and batches for the training tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from weft.data.batch import IGNORE, Batch
from weft.models.decoder import Decoder
from weft.spec import ModelShape

VOCAB_SIZE = 32


def tiny_model(seed: int = 0, **shape: object) -> Decoder:
    settings = {"dim": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 32}
    return Decoder(ModelShape(**{**settings, **shape}).build(VOCAB_SIZE), seed=seed)  # type: ignore[arg-type]


def make_batch(lengths: Sequence[int], seed: int = 0) -> Batch:
    """Return random documents; the last token of each has no target."""
    rng = np.random.default_rng(seed)
    tokens_T = rng.integers(0, VOCAB_SIZE, sum(lengths))
    labels_T = np.roll(tokens_T, -1)
    labels_T[np.cumsum(lengths) - 1] = IGNORE
    return Batch(tokens_T, labels_T, tuple(lengths))


class CountingSource:
    """Batches that count upwards modulo the vocabulary: quick to learn, a function of the index."""

    def __init__(self, length: int = 8, num_documents: int = 2) -> None:
        self.length, self.num_documents = length, num_documents
        self.asked: list[int] = []

    def batch(self, index: int) -> Batch:
        self.asked.append(index)
        rng = np.random.default_rng(index)
        starts = rng.integers(0, VOCAB_SIZE, self.num_documents)
        documents = [(start + np.arange(self.length)) % VOCAB_SIZE for start in starts]
        labels = [np.append(document[1:], IGNORE) for document in documents]
        return Batch(
            np.concatenate(documents),
            np.concatenate(labels),
            (self.length,) * self.num_documents,
        )


@pytest.fixture
def source() -> CountingSource:
    return CountingSource()
