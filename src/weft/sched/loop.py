"""The one serving loop: schedule, execute, settle.

The clock and the runner are arguments. The engine passes a monotonic clock and a runner that
computes; the simulator passes a virtual clock and a runner that advances it by predicted step
times. Both run this very code, so a simulated schedule is the engine's schedule.
"""

from __future__ import annotations

import time
from typing import Protocol

from weft.sched.plan import SequenceUpdate, StepPlan, StepResult
from weft.sched.scheduler import Scheduler
from weft.spec.request import FinishReason, Request


class Clock(Protocol):
    """Time in seconds from an arbitrary origin; never goes back."""

    def now(self) -> float: ...

    def sleep_until(self, time_s: float) -> None: ...


class Runner(Protocol):
    """Computes steps and keeps the state of the sequences it has seen."""

    def execute(self, plan: StepPlan) -> StepResult:
        """Forget `plan.finished`, take in `plan.new`, compute `plan.items`."""
        ...

    def forget(self, ids: tuple[int, ...]) -> None:
        """Drop sequences that ended when no further step carries the news."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return seconds since an arbitrary origin."""
        return time.monotonic()

    def sleep_until(self, time_s: float) -> None:
        """Sleep until the clock reads `time_s`; return at once if it already does."""
        time.sleep(max(0.0, time_s - time.monotonic()))


class VirtualClock:
    """A clock that moves only when told to."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def now(self) -> float:
        """Return the simulated time in seconds."""
        return self._now_s

    def advance(self, duration_s: float) -> None:
        """Let `duration_s` seconds pass."""
        assert duration_s >= 0.0, duration_s
        self._now_s += duration_s

    def sleep_until(self, time_s: float) -> None:
        """Jump to `time_s` unless it has passed."""
        self._now_s = max(self._now_s, time_s)


class ServingLoop:
    """Drives one scheduler and one runner. Not thread-safe: call it from one thread.

    Attributes:
        failure: The exception that ended the last step, if one did. Its requests got an update
            with `FinishReason.ERROR`; the owner decides whether the runner can go on.
    """

    def __init__(self, scheduler: Scheduler, runner: Runner, clock: Clock) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.clock = clock
        self.failure: Exception | None = None

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return self.scheduler.has_work

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ContextLengthError: its prompt can never fit.
            QueueFullError: too many requests are waiting.
            RequestError: an empty prompt, or an id that is in use.
        """
        self.scheduler.submit(request)

    def abort(
        self, request_id: str, reason: FinishReason = FinishReason.ABORT
    ) -> SequenceUpdate | None:
        """End a request now; return its last update, or None if it had already ended."""
        return self.scheduler.finish(request_id, reason)

    def step(self) -> list[SequenceUpdate]:
        """Run one step and return the news of every request that moved or ended."""
        plan = self.scheduler.schedule(self.clock.now())
        self.failure = None
        try:
            result = self._execute(plan)
        except BaseException as error:
            # Settle in any case, so that no block stays locked by a step that never ended.
            failed = {item.id: f"{type(error).__name__}: {error}" for item in plan.items}
            result = StepResult(tokens={}, errors=failed)
            if not isinstance(error, Exception):
                self.scheduler.settle(plan, result, self.clock.now())
                raise
            self.failure = error
        return self.scheduler.settle(plan, result, self.clock.now())

    def _execute(self, plan: StepPlan) -> StepResult:
        if plan.items:
            return self.runner.execute(plan)
        if plan.finished:
            self.runner.forget(plan.finished)
        return StepResult(tokens={})
