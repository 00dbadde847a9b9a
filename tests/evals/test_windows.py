from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.data.batch import IGNORE
from weft.evals.windows import batches, check_windows, document_windows


@given(length=st.integers(0, 60), window=st.integers(1, 20), data=st.data())
def test_every_token_but_the_first_is_predicted_once_from_what_precedes_it(length, window, data):
    stride = data.draw(st.integers(1, window))
    tokens = np.arange(length)
    predicted = []
    for piece in document_windows(tokens, window, stride):
        assert len(piece) <= window
        for position, label in enumerate(piece.labels_T.tolist()):
            if label == IGNORE:
                continue
            predicted.append(label)
            # Tokens are their own positions here.
            assert piece.tokens_T[position] == label - 1
            assert position >= min(label - 1, window - stride)
    assert predicted == list(range(1, length))


def test_batches_keep_documents_apart_and_within_the_limit():
    pieces = [p for n in (5, 9, 3) for p in document_windows(np.arange(n), 4, 4)]
    joined = list(batches(pieces, 8))
    assert [length for batch in joined for length in batch.lengths] == [len(p) for p in pieces]
    assert all(len(batch) <= 8 for batch in joined)


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (9, 1), (4, 5), (4, 0)])
def test_windows_that_do_not_fit_are_refused(window, stride):
    with pytest.raises(ConfigError):
        check_windows(window, stride, 8)
