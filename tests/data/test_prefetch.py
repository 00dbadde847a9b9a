from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

from weft.data.batch import IGNORE, Batch
from weft.data.prefetch import prefetch


def make(index: int) -> Batch:
    return Batch(np.array([index]), np.array([IGNORE]), (1,))


def test_batches_come_in_order_from_the_start() -> None:
    batches = itertools.islice(prefetch(make, 7, depth=3), 20)
    assert [int(batch.tokens_T[0]) for batch in batches] == list(range(7, 27))


def test_the_next_batches_are_made_before_they_are_asked_for() -> None:
    made = threading.Event()

    def record(index: int) -> Batch:
        if index == 2:
            made.set()
        return make(index)

    batches = prefetch(record, 0, depth=3)
    next(batches)
    assert made.wait(timeout=10)
    batches.close()  # pyrefly: ignore


def test_error_of_a_batch_reaches_the_caller_and_the_thread_ends() -> None:
    def fail(index: int) -> Batch:
        if index == 2:
            raise OSError("gone")
        return make(index)

    batches = prefetch(fail, 0)
    assert [int(next(batches).tokens_T[0]) for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(batches)
    assert not [t for t in threading.enumerate() if t.name.startswith("weft-prefetch")]
