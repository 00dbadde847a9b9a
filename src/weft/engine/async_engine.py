"""``AsyncEngine``: one worker thread runs the engine, any number of coroutines wait for it.

Between two steps the worker carries out what coroutines have asked for (submit, abort, new
weights), so the core is only ever touched by one thread. News travels back once per step and event
loop. A request ends for its consumer in exactly one way: a delta with a finish reason.

Health is told from the outside: ``healthy`` is false when the thread has died, when one step has
lasted longer than ``stall_timeout_s``, or when several steps in a row have failed.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from weft.core.errors import ResourceError, WeftError
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.mailbox import Mailbox, Post
from weft.engine.outputs import Delta, Usage
from weft.engine.stats import EngineStats
from weft.models.decoder import Decoder
from weft.sched.loop import Clock
from weft.spec.request import FinishReason, Request
from weft.text.tokenizer import Tokenizer

ResultT = TypeVar("ResultT")

# An idle worker looks at its inbox this often, so that its heartbeat goes on.
_IDLE_WAIT_S = 0.25
_MAX_FAILED_STEPS = 3


class AsyncEngine:
    """An engine behind a thread.

    Args:
        model: A live module, used in place.
        tokenizer: For text and stop texts.
        config: Sizes and limits.
        clock: Where times come from; tests pass their own.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer | None = None,
        config: EngineConfig | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.core = EngineCore(model, tokenizer, config, clock=clock)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._mailboxes: dict[str, Mailbox] = {}
        self._closing = threading.Event()
        self._draining = False
        self._failure: BaseException | None = None
        self._num_failed_in_a_row = 0
        self._heartbeat_s = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="weft-engine", daemon=True)
        self._thread.start()

    # What coroutines call.

    async def submit(self, request: Request) -> DeltaStream:
        """Queue a request and return its deltas.

        The stream must be read to its end or closed; cancelling its consumer, closing it or
        dropping it aborts the request.

        Raises:
            ContextLengthError, QueueFullError, RequestError: the request is refused.
            ResourceError: the engine is draining, closed or dead.
        """
        self._refuse_if_ending()
        mailbox = Mailbox(asyncio.get_running_loop())
        stream = DeltaStream(self, request.id, mailbox)
        accepted = self._ask(lambda: self._accept(request, mailbox))
        try:
            await asyncio.wrap_future(accepted)
        except asyncio.CancelledError:
            self.abort(request.id)
            raise
        stream.open()
        return stream

    async def generate(self, request: Request) -> AsyncIterator[Delta]:
        """Submit a request and yield its deltas; leaving the loop early aborts it."""
        async with await self.submit(request) as stream:
            async for delta in stream:
                yield delta

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request before its next step; callable from any thread, idempotent."""
        self._inbox.put(lambda: self._abort(request_id, reason))

    async def bump_weight_version(self) -> int:
        """Say that the weights have changed in place; return the new version."""
        return await asyncio.wrap_future(self._ask(self.core.bump_weight_version))

    async def run_between_steps(self, call: Callable[[], ResultT]) -> ResultT:
        """Run ``call`` in the worker while no step is running, such as to update weights."""
        return await asyncio.wrap_future(self._ask(call))

    async def stats(self) -> EngineStats:
        """Return a snapshot taken between two steps."""
        return await asyncio.wrap_future(self._ask(self.core.stats))

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and wait for the others; True when none is left."""
        self._draining = True
        end_s = time.monotonic() + timeout_s
        while self._mailboxes and self._thread.is_alive() and time.monotonic() < end_s:
            await asyncio.sleep(0.01)
        return not self._mailboxes

    async def close(self, timeout_s: float = 10.0) -> None:
        """Abort what is left and end the thread; idempotent."""
        await asyncio.to_thread(self.shutdown, timeout_s)

    def shutdown(self, timeout_s: float = 10.0) -> None:
        """Do what ``close`` does, for callers without an event loop."""
        self._draining = True
        self._closing.set()
        self._inbox.put(lambda: None)
        self._thread.join(timeout_s)

    @property
    def healthy(self) -> bool:
        """Whether the worker lives, moves and computes."""
        silent_s = time.monotonic() - self._heartbeat_s
        return (
            self._thread.is_alive()
            and silent_s < self.core.config.stall_timeout_s
            and self._num_failed_in_a_row < _MAX_FAILED_STEPS
        )

    @property
    def draining(self) -> bool:
        """Whether new requests are refused."""
        return self._draining

    @property
    def num_unfinished(self) -> int:
        """Requests that wait or run."""
        return len(self._mailboxes)

    @property
    def failure(self) -> BaseException | None:
        """What killed the worker, or the last step that failed."""
        return self._failure or self.core.loop.failure

    # What the worker thread runs.

    def _work(self) -> None:
        try:
            while not self._closing.is_set():
                self._heartbeat_s = time.monotonic()
                self._obey()
                if self.core.has_work and not self._closing.is_set():
                    self._step()
        except BaseException as error:
            self._failure = error
        finally:
            self._end_all()

    def _obey(self) -> None:
        """Carry out what was asked for; wait for it while there is nothing else to do."""
        try:
            command = self._inbox.get(not self.core.has_work, _IDLE_WAIT_S)
            while True:
                command()
                command = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _step(self) -> None:
        deltas = self.core.step()
        failed = self.core.loop.failure is not None
        self._num_failed_in_a_row = self._num_failed_in_a_row + 1 if failed else 0
        self._deliver(deltas)

    def _accept(self, request: Request, mailbox: Mailbox) -> None:
        self._refuse_if_ending()
        self.core.submit(request)
        self._mailboxes[request.id] = mailbox

    def _abort(self, request_id: str, reason: FinishReason) -> None:
        delta = self.core.abort(request_id, reason)
        if delta is not None:
            self._deliver([delta])

    def _deliver(self, deltas: list[Delta]) -> None:
        post = Post()
        for delta in deltas:
            post.add(self._mailboxes[delta.request_id], delta)
            if delta.finish_reason is not None:
                del self._mailboxes[delta.request_id]
        post.send()

    def _end_all(self) -> None:
        """Tell every consumer that nothing more will come."""
        reason, error = FinishReason.ABORT, None
        if self._failure is not None:
            failure = self._failure
            reason, error = FinishReason.ERROR, f"{type(failure).__name__}: {failure}"
        post = Post()
        for request_id, mailbox in self._mailboxes.items():
            post.add(mailbox, _last_delta(request_id, reason, error, self.core.weight_version))
        self._mailboxes.clear()
        post.send()
        self._draining = True
        # Whoever asked after the last look at the inbox gets an answer, too.
        while not self._inbox.empty():
            self._inbox.get_nowait()()

    # Shared by both sides.

    def _ask(self, call: Callable[[], ResultT]) -> Future[ResultT]:
        answer: Future[ResultT] = Future()

        def command() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(call())
            except BaseException as error:
                answer.set_exception(error)

        if not self._thread.is_alive():
            self._refuse_if_ending()
            command()
        else:
            self._inbox.put(command)
        return answer

    def _refuse_if_ending(self) -> None:
        if self._failure is not None or not self._thread.is_alive():
            cause = f": {self._failure}" if self._failure is not None else ""
            raise ResourceError(f"the engine has stopped{cause}", fix="restart the engine")
        if self._draining:
            raise ResourceError(
                "the engine is shutting down and takes no new requests", fix="try another replica"
            )
