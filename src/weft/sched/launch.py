"""How a plan gets to the runner: computed when its result is asked for, or meanwhile in a thread.

A runner with its own queue, such as a device stream, implements `Launcher` itself.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from weft.sched.plan import StepPlan, StepResult


class Runner(Protocol):
    """Computes steps and keeps the state of the sequences it has seen.

    The moves of a plan come first. What cannot be moved is named in `StepResult.lost`; an exception
    says that nothing was computed, not that nothing was moved.

    Where steps overlap, an item may follow one of the same sequence that failed or that ended it.
    Its result is not looked at, but it must not disturb others: a `PENDING` token that was never
    drawn is an error of that sequence alone.
    """

    def execute(self, plan: StepPlan) -> StepResult:
        """Forget `plan.finished`, take in `plan.new`, compute `plan.items`."""
        ...

    def forget(self, ids: tuple[int, ...]) -> None:
        """Drop sequences that ended when no further step carries the news."""
        ...


class Handle(Protocol):
    """A step on its way."""

    def result(self) -> StepResult:
        """Wait for the step and return its result, or raise what it raised."""
        ...


@runtime_checkable
class Launcher(Protocol):
    """Computes plans strictly in the order they are launched in."""

    def launch(self, plan: StepPlan) -> Handle:
        """Begin to compute a plan and return at once."""
        ...


class LaunchedLazily:
    """Computes each plan in the caller's thread when its result is asked for."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def launch(self, plan: StepPlan) -> Handle:
        """Remember the plan."""
        return _Lazy(lambda: run(self.runner, plan))


class LaunchedInThread:
    """Computes plans in one worker thread, so that the caller schedules the next one meanwhile."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weft-runner")

    def launch(self, plan: StepPlan) -> Handle:
        """Queue the plan behind those launched before."""
        return self._worker.submit(run, self.runner, plan)

    def close(self) -> None:
        """Wait for the launched plans and end the thread."""
        self._worker.shutdown()


def launch(launcher: Launcher, plan: StepPlan) -> Handle:
    """Launch a plan; what that raises is raised by `result`, as if the step had failed later."""
    try:
        return launcher.launch(plan)
    except BaseException as error:
        return _Failed(error)


def run(runner: Runner, plan: StepPlan) -> StepResult:
    """Compute a plan; one without items only tells the runner whom to forget."""
    if plan.items:
        return runner.execute(plan)
    if plan.finished:
        runner.forget(plan.finished)
    return StepResult(tokens={})


class _Lazy:
    def __init__(self, compute: Callable[[], StepResult]) -> None:
        self._compute = compute

    def result(self) -> StepResult:
        return self._compute()


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def result(self) -> StepResult:
        raise self._error
