"""``AsyncEmbedder``: one worker thread turns texts of any number of coroutines into vectors.

The worker takes whatever waits, up to a number of tokens, and computes it as one batch: what comes
while a batch is computed makes the next one, so requests share forward passes without waiting for
one another. A text's vector does not depend on what it is batched with.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from weft.core.errors import QueueFullError, ResourceError
from weft.models.embed import TextEmbedder

TokenLists = Sequence[Sequence[int]]


@dataclass(frozen=True)
class _Job:
    tokens: TokenLists
    answer: Future[np.ndarray] = field(default_factory=Future)

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.tokens))


class AsyncEmbedder:
    """An embedder behind a thread.

    Args:
        embedder: Used in place, by the worker alone; its tokenizer by whoever encodes.
        tokens_per_batch: About so many tokens are computed together.
        max_waiting: Texts that may wait.
    """

    def __init__(
        self, embedder: TextEmbedder, *, tokens_per_batch: int = 8192, max_waiting: int = 8192
    ) -> None:
        self.embedder = embedder
        self.tokens_per_batch = tokens_per_batch
        self.max_waiting = max_waiting
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Guards the count and the moment after which nobody reads the inbox any more.
        self._lock = threading.Lock()
        self._num_waiting = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="weft-embedder", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether texts are taken and the worker lives."""
        return not self._closed and self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Texts that wait or are being computed."""
        return self._num_waiting

    async def embed_tokens(self, tokens: TokenLists) -> np.ndarray:
        """Return one vector per list of token ids, [B, D] float32.

        Raises:
            QueueFullError: too many texts are waiting.
            ResourceError: the embedder is closed.
        """
        job = _Job(tokens)
        self._put(job)
        return await asyncio.wrap_future(job.answer)

    def shutdown(self, timeout_s: float = 10.0) -> None:
        """Refuse new texts, compute those that wait, and end the thread; idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._inbox.put(None)
        self._thread.join(timeout_s)

    def _put(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                raise ResourceError("the embedder is closed", fix="try another replica")
            # A request that is larger than the queue gets it when it is empty.
            if self._num_waiting and self._num_waiting + len(job.tokens) > self.max_waiting:
                raise QueueFullError(
                    f"{self._num_waiting} texts are waiting, {self.max_waiting} may",
                    retry_after_s=1,
                    fix="try again in 1 s",
                )
            self._num_waiting += len(job.tokens)
            self._inbox.put(job)

    def _work(self) -> None:
        open_ = True
        while open_:
            job = self._inbox.get()
            if job is None:
                return
            jobs = [job]
            num_tokens = job.num_tokens
            while num_tokens < self.tokens_per_batch and not self._inbox.empty():
                job = self._inbox.get()
                if job is None:
                    open_ = False
                    break
                jobs.append(job)
                num_tokens += job.num_tokens
            self._answer(jobs)

    def _answer(self, jobs: Sequence[_Job]) -> None:
        """Compute jobs together; where that fails, find out whose fault it was."""
        wanted = []
        for job in jobs:
            if job.answer.set_running_or_notify_cancel():
                wanted.append(job)
            else:
                self._leave_queue(job)
        try:
            if wanted:
                self._compute(wanted)
        except Exception:
            for job in wanted:
                try:
                    self._compute([job])
                except Exception as error:
                    self._leave_queue(job)
                    job.answer.set_exception(error)

    def _compute(self, jobs: Sequence[_Job]) -> None:
        tokens = [ids for job in jobs for ids in job.tokens]
        vectors_BD = self.embedder.embed_tokens(tokens, tokens_per_batch=self.tokens_per_batch)
        ends = np.cumsum([len(job.tokens) for job in jobs])
        parts = np.split(vectors_BD.cpu().numpy(), ends[:-1])
        for job, part in zip(jobs, parts, strict=True):
            self._leave_queue(job)
            job.answer.set_result(part)

    def _leave_queue(self, job: _Job) -> None:
        """Give up a job's place; before its answer, so that whoever gets that finds the room."""
        with self._lock:
            self._num_waiting -= len(job.tokens)
