from __future__ import annotations

import numpy as np
import pytest

from weft.core.errors import DataError
from weft.data.batch import IGNORE, Batch, concatenate


def test_targets_are_counted_without_ignored_positions() -> None:
    batch = Batch(np.arange(4), np.array([1, IGNORE, 3, IGNORE]), (2, 2))
    assert batch.num_targets == 2
    assert len(batch) == 4


def test_concatenate_keeps_documents_apart() -> None:
    one = Batch(np.array([1, 2]), np.array([2, IGNORE]), (2,))
    two = Batch(np.array([3]), np.array([IGNORE]), (1,))
    joined = concatenate([one, two, one])
    assert joined.tokens_T.tolist() == [1, 2, 3, 1, 2]
    assert joined.labels_T.tolist() == [2, IGNORE, IGNORE, 2, IGNORE]
    assert joined.lengths == (2, 1, 2)


@pytest.mark.parametrize(
    ("tokens", "labels", "lengths"),
    [([1, 2], [1], (2,)), ([1, 2], [1, 2], (1,)), ([1, 2], [1, 2], (2, 0)), ([[1]], [[1]], (1,))],
)
def test_parts_that_do_not_fit_are_refused(
    tokens: list, labels: list, lengths: tuple[int, ...]
) -> None:
    with pytest.raises(DataError, match=r"shape|sum to"):
        Batch(np.array(tokens), np.array(labels), lengths)


def test_nothing_to_concatenate_is_an_error() -> None:
    with pytest.raises(DataError, match="no batches"):
        concatenate([])
