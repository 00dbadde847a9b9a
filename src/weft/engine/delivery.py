"""From the worker thread to coroutines: mailboxes, one wake-up per event loop and step, streams."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType

from weft.engine.outputs import Delta


class Mailbox:
    """Where one consumer, in one event loop, finds the deltas of one request."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.deltas: asyncio.Queue[Delta] = asyncio.Queue()


class Post:
    """The deltas of one step, sorted by event loop so that each is woken once."""

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Mailbox, Delta]]] = defaultdict(
            list
        )

    def add(self, mailbox: Mailbox, delta: Delta) -> None:
        """Address a delta."""
        self._by_loop[mailbox.loop].append((mailbox, delta))

    def send(self) -> list[str]:
        """Hand everything over; return the requests whose event loop is gone."""
        undeliverable: list[str] = []
        for loop, letters in self._by_loop.items():
            try:
                loop.call_soon_threadsafe(_put_all, letters)
            except RuntimeError:  # the event loop is closed
                undeliverable.extend(delta.request_id for _, delta in letters)
        return undeliverable


class DeltaStream:
    """The deltas of one accepted request, the last of which has a finish reason.

    Read it to the end, or use it as an ``async with`` context, or close it. Whoever goes away
    early (by ``aclose``, by cancellation, or by dropping the stream) aborts the request.
    """

    def __init__(self, request_id: str, mailbox: Mailbox, abort: Callable[[str], None]) -> None:
        self.request_id = request_id
        self._mailbox = mailbox
        self._abort = abort
        self._ended = False

    def __aiter__(self) -> DeltaStream:
        return self

    async def __anext__(self) -> Delta:
        if self._ended:
            raise StopAsyncIteration
        try:
            delta = await self._mailbox.deltas.get()
        except asyncio.CancelledError:
            self._leave()
            raise
        self._ended = delta.finish_reason is not None
        return delta

    async def aclose(self) -> None:
        """Abort the request unless it has ended; idempotent."""
        self._leave()

    async def __aenter__(self) -> DeltaStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def __del__(self) -> None:
        self._leave()

    def _leave(self) -> None:
        if not self._ended:
            self._ended = True
            self._abort(self.request_id)


def _put_all(letters: list[tuple[Mailbox, Delta]]) -> None:
    for mailbox, delta in letters:
        mailbox.deltas.put_nowait(delta)
