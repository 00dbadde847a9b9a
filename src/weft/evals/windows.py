"""How documents are cut into windows, so that every token is predicted exactly once.

A document is cut into windows of ``window`` positions that advance by ``stride``. In
each window only the targets that no earlier window has predicted count, so every token of a
document but its first is predicted exactly once, with at least ``window - stride`` tokens of
context wherever the document has that many before it. The first token is given: corpora begin
documents with a begin token for that reason. stride = window is fastest and gives each window a
cold start; a smaller stride gives more context and a lower perplexity, at window / stride times
the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from weft.core.errors import ConfigError
from weft.data.batch import IGNORE, Batch, concatenate


def check_windows(window: int, stride: int, context_length: int) -> None:
    """Refuse windows that do not fit the model or would leave tokens out.

    Raises:
        ConfigError: says which of the two is wrong.
    """
    if not 1 <= window <= context_length:
        raise ConfigError(
            f"window is {window}; the model's context is {context_length}",
            fix=f"use 1 to {context_length}",
        )
    if not 1 <= stride <= window:
        raise ConfigError(
            f"stride is {stride} with a window of {window}; tokens would be left out",
            fix=f"use 1 to {window}",
        )


def document_windows(tokens: np.ndarray, window: int, stride: int) -> Iterator[Batch]:
    """Yield the windows of one document; together their labels are tokens[1:], each once."""
    inputs, targets = tokens[:-1], tokens[1:]
    done = 0  # targets before this index are predicted
    start = 0
    while done < len(targets):
        stop = min(start + window, len(targets))
        labels = targets[start:stop].copy()
        labels[: done - start] = IGNORE
        yield Batch(inputs[start:stop], labels, (stop - start,))
        done = stop
        start += stride


def batches(pieces: Iterable[Batch], max_tokens: int) -> Iterator[Batch]:
    """Join pieces to batches of at most ``max_tokens`` tokens; a longer piece is its own."""
    part: list[Batch] = []
    num_tokens = 0
    for piece in pieces:
        if part and num_tokens + len(piece) > max_tokens:
            yield concatenate(part)
            part, num_tokens = [], 0
        part.append(piece)
        num_tokens += len(piece)
    if part:
        yield concatenate(part)
