"""Tiny models and batches for the training tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weft.data.batch import IGNORE, Batch
from weft.models.decoder import Decoder
from weft.spec import ModelShape

VOCAB_SIZE = 32


def tiny_model(seed: int = 0, **shape: Any) -> Decoder:
    settings = {"dim": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 32}
    return Decoder(ModelShape(**{**settings, **shape}).build(VOCAB_SIZE), seed=seed)


def make_batch(lengths: Sequence[int], seed: int = 0) -> Batch:
    """Return random documents; the last token of each has no target."""
    rng = np.random.default_rng(seed)
    tokens_T = rng.integers(0, VOCAB_SIZE, sum(lengths))
    labels_T = np.roll(tokens_T, -1)
    labels_T[np.cumsum(lengths) - 1] = IGNORE
    return Batch(tokens_T, labels_T, tuple(lengths))


class CountingSource:
    """Documents that count upwards modulo the vocabulary: quick to learn."""

    def __init__(self, length: int = 8, num_documents: int = 2) -> None:
        self.length, self.num_documents = length, num_documents
        self.asked: list[int] = []

    def batch(self, index: int) -> Batch:
        self.asked.append(index)
        starts = np.random.default_rng(index).integers(0, VOCAB_SIZE, self.num_documents)
        documents = [(start + np.arange(self.length)) % VOCAB_SIZE for start in starts]
        labels = [np.append(document[1:], IGNORE) for document in documents]
        return Batch(
            np.concatenate(documents),
            np.concatenate(labels),
            (self.length,) * self.num_documents,
        )


class Recorder:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, event: Mapping[str, Any]) -> None:
        self.events.append(dict(event))

    def close(self) -> None:
        pass

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]
