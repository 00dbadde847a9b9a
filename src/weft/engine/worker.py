"""A thread that works step by step and, between steps, does what other threads ask of it.

So what it works on is touched by one thread only. Questions are answered by futures, also after
the thread has ended: then there is nobody to race with, and the asking thread finds out itself.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

ResultT = TypeVar("ResultT")

# An idle worker looks at its inbox this often, so that its heartbeat goes on.
_IDLE_WAIT_S = 0.25


class Worker:
    """The thread; it starts at once.

    Args:
        name: Of the thread.
        has_work: Whether ``step`` has anything to do.
        step: Does a bit of the work. What it raises ends the thread.
        end: Called last, in the thread, when every question has been answered.

    Attributes:
        thread: The thread itself.
        heartbeat_s: When it last began to look around, on ``time.monotonic``.
        failure: What ended it, if it did not end by itself.
        ended: Nobody reads the inbox any more.
    """

    def __init__(
        self,
        name: str,
        *,
        has_work: Callable[[], bool],
        step: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        self._has_work = has_work
        self._step = step
        self._finish = end
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._stopping = False
        # Guards the moment after which nobody reads the inbox any more.
        self._end_lock = threading.Lock()
        self.ended = False
        self.failure: BaseException | None = None
        self.heartbeat_s = time.monotonic()
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def tell(self, command: Callable[[], object]) -> None:
        """Let the worker do something before its next step; callable from any thread.

        An exception ends the worker; ``ask`` hands it to whoever asks.
        """
        self._inbox.put(command)

    def ask(self, call: Callable[[], ResultT]) -> Future[ResultT]:
        """Let the worker call; after its end, call here and now."""
        answer: Future[ResultT] = Future()

        def command() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(call())
            except BaseException as error:
                answer.set_exception(error)

        with self._end_lock:
            if not self.ended:
                self._inbox.put(command)
                return answer
        command()
        return answer

    def stop(self, timeout_s: float) -> None:
        """End the thread after its present step and wait for it that long; idempotent."""
        self._stopping = True
        self._inbox.put(lambda: None)  # wakes an idle worker
        self.thread.join(timeout_s)

    def is_alive(self, stall_timeout_s: float) -> bool:
        """Whether the thread lives and has looked around within that time."""
        return self.thread.is_alive() and time.monotonic() - self.heartbeat_s < stall_timeout_s

    def _work(self) -> None:
        try:
            while not self._stopping:
                self.heartbeat_s = time.monotonic()
                self._obey()
                if self._has_work() and not self._stopping:
                    self._step()
        except BaseException as error:
            self.failure = error
        finally:
            self._end()

    def _obey(self) -> None:
        """Carry out what was asked for; wait for it while there is nothing else to do."""
        try:
            command = self._inbox.get(not self._has_work(), _IDLE_WAIT_S)
            while True:
                command()
                command = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _end(self) -> None:
        with self._end_lock:
            self.ended = True
        while not self._inbox.empty():
            self._inbox.get_nowait()()
        self._finish()
