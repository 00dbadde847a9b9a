"""Corpora of numbered tokens: every token of a corpus is different, so losses are visible."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from weft.data.shards import TokenDocument, TokenShards, write_shards

FINGERPRINT = "f" * 64

document_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def numbered_shards(
    folder: Path, lengths: list[int], *, max_tokens_per_file: int = 2**28
) -> TokenShards:
    """Write documents whose tokens are 0, 1, 2 ... over the whole stream."""
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    documents = [
        TokenDocument(np.arange(a, b), 3 * int(b - a)) for a, b in itertools.pairwise(bounds)
    ]
    return write_shards(
        folder,
        documents,
        vocab_size=max(2, int(bounds[-1])),
        tokenizer_fingerprint=FINGERPRINT,
        max_tokens_per_file=max_tokens_per_file,
    )
