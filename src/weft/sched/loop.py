"""The one serving loop: schedule, launch, settle.

With depth 0 a step is settled before the next one is scheduled. With depth 1 the next one is
scheduled and launched first, so that the runner never waits for the scheduler (the overlap of
Zheng et al. 2024, SGLang v0.4, and NanoFlow, arXiv:2408.12757); the tokens are the same.

The clock and the runner are arguments. The engine passes a monotonic clock and a runner that
computes; the simulator passes a virtual clock and a runner that advances it by predicted step
times. Both run this very code, so a simulated schedule is the engine's schedule.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from weft.sched.launch import Handle, LaunchedLazily, Launcher, Runner, launch
from weft.sched.plan import SequenceUpdate, StepPlan, StepResult
from weft.sched.scheduler import Scheduler
from weft.spec.request import FinishReason, Request


class Clock(Protocol):
    """Time in seconds from an arbitrary origin; never goes back."""

    def now(self) -> float: ...

    def sleep_until(self, time_s: float) -> None: ...


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

    Args:
        scheduler: Decides.
        runner: Computes. A `Launcher`, such as `LaunchedInThread(runner)`, is given plans as they
            are scheduled; any other runner computes a plan when it is settled.
        clock: Tells the time.
        depth: Most plans in flight while the next one is scheduled.

    Attributes:
        failure: The exception that ended the last step, if one did. Its requests got an update
            with `FinishReason.ERROR`; the owner decides whether the runner can go on.
        num_settled_tokens: Tokens computed by steps that were settled and did not fail.
    """

    def __init__(
        self, scheduler: Scheduler, runner: Runner | Launcher, clock: Clock, *, depth: int = 0
    ) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.depth = depth
        self.failure: Exception | None = None
        self._launcher = runner if isinstance(runner, Launcher) else LaunchedLazily(runner)
        self.num_settled_tokens = 0
        self._in_flight: deque[tuple[StepPlan, Handle]] = deque()
        self._updates: list[SequenceUpdate] = []

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._in_flight or self._updates) or self.scheduler.has_work

    @property
    def num_in_flight(self) -> int:
        """Plans that are launched and not settled."""
        return len(self._in_flight)

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ContextLengthError: its prompt can never fit.
            QueueFullError: too many requests are waiting.
            RequestError: an empty prompt, or an id that is in use.
        """
        self.scheduler.submit(request)

    def submit_all(self, requests: Sequence[Request]) -> None:
        """Queue requests, all or none: a first sample, then those forked from it.

        Raises:
            ContextLengthError, QueueFullError, RequestError: see `submit`.
        """
        self.scheduler.submit_all(requests)

    def abort(
        self, request_id: str, reason: FinishReason = FinishReason.ABORT
    ) -> SequenceUpdate | None:
        """End a request now; return its last update, or None if it had already ended."""
        return self.scheduler.finish(request_id, reason)

    def step(self) -> list[SequenceUpdate]:
        """Launch one step, settle those that are due, and return the news of every request."""
        self.failure = None
        plan = self.scheduler.schedule(self.clock.now())
        self._in_flight.append((plan, launch(self._launcher, plan)))
        # A plan without items waits for what is in flight: there is nothing to overlap it with.
        return self._settle_down_to(self.depth if plan.items else 0)

    def drain(self) -> list[SequenceUpdate]:
        """Settle all plans in flight, so that nothing is computed until the next `step`."""
        self.failure = None
        return self._settle_down_to(0)

    def _settle_down_to(self, num_plans: int) -> list[SequenceUpdate]:
        while len(self._in_flight) > num_plans:
            self._settle(*self._in_flight.popleft())
        updates, self._updates = self._updates, []
        return updates

    def _settle(self, plan: StepPlan, handle: Handle) -> None:
        try:
            result = handle.result()
        except BaseException as error:
            # Settle in any case, so that no block stays locked by a step that never ended.
            failed = {item.id: f"{type(error).__name__}: {error}" for item in plan.items}
            result = StepResult(tokens={}, errors=failed)
            if not isinstance(error, Exception):
                # Whoever catches it still gets the news, with the next step or from `drain`.
                self._updates += self.scheduler.settle(plan, result, self.clock.now())
                raise
            self.failure = error
        else:
            self.num_settled_tokens += plan.num_tokens
        self._updates += self.scheduler.settle(plan, result, self.clock.now())
