"""Making the next batches while the model works on this one."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from weft.data.batch import Batch


def prefetch(batch: Callable[[int], Batch], start: int, *, depth: int = 2) -> Iterator[Batch]:
    """Yield ``batch(start)``, ``batch(start + 1)`` ... computed up to ``depth`` ahead.

    One thread is enough: reading mapped memory and copying arrays release the interpreter for
    most of their time. Close the iterator (or leave it to the garbage collector) to end it.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="weft-prefetch") as pool:
        waiting: collections.deque[Future[Batch]] = collections.deque()
        index = start
        try:
            while True:
                while len(waiting) < depth:
                    waiting.append(pool.submit(batch, index))
                    index += 1
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
