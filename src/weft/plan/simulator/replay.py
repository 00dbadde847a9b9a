"""Record what a real engine's scheduler did, and run it again.

``RecordingScheduler`` is the engine's scheduler with a journal: requests, endings, and for each
step its plan, its result and when it began and ended. ``replay`` feeds the journal to a new
scheduler with the recorded times; since the scheduler is the same code and gets the same news at
the same times, its plans must be the same, block for block, also where steps overlapped. From the
same journal ``fit_step_time`` learns how long steps take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from weft.core.errors import ConfigError
from weft.plan.least_squares import non_negative
from weft.plan.simulator.runner import LinearStepTime
from weft.sched.config import SchedulerConfig
from weft.sched.plan import SequenceUpdate, StepItem, StepPlan, StepResult
from weft.sched.scheduler import Scheduler
from weft.spec.request import FinishReason, Request


@dataclass(frozen=True)
class Submitted:
    """A request came."""

    request: Request


@dataclass(frozen=True)
class Ended:
    """A request was ended from outside: a stop text, an abort."""

    request_id: str
    reason: FinishReason


@dataclass(frozen=True)
class Reweighted:
    """The weights changed."""

    weight_version: int


@dataclass(frozen=True)
class Retracted:
    """All running sequences gave their blocks back."""


@dataclass(frozen=True)
class Planned:
    """A step was planned; where steps overlap, earlier ones are settled later."""

    start_s: float


@dataclass(frozen=True)
class Stepped:
    """A step that was planned before has been computed and settled."""

    start_s: float
    end_s: float
    plan: StepPlan
    result: StepResult


# A step so many times longer than it should be was interrupted by something else.
_OUTLIER = 3.0

Entry = Submitted | Ended | Reweighted | Retracted | Planned | Stepped


class RecordingScheduler(Scheduler):
    """The engine's scheduler with a journal.

    Use it in place of a scheduler that has not begun: ``core.scheduler = core.loop.scheduler =
    RecordingScheduler(core.scheduler.config, eos_ids=core.eos_ids)``.

    Attributes:
        journal: What happened, in order.
    """

    def __init__(self, config: SchedulerConfig, *, eos_ids: Sequence[int] = ()) -> None:
        super().__init__(config, eos_ids=eos_ids)
        self.journal: list[Entry] = []
        self._starts_s: deque[float] = deque()

    def submit_all(self, requests: Sequence[Request]) -> None:
        """Queue requests; refused ones are not recorded."""
        super().submit_all(requests)
        self.journal += [Submitted(request) for request in requests]

    def finish(
        self, request_id: str, reason: FinishReason, *, error: str | None = None
    ) -> SequenceUpdate | None:
        """End a request; ending it again is not recorded."""
        update = super().finish(request_id, reason, error=error)
        if update is not None:
            self.journal.append(Ended(request_id, reason))
        return update

    def set_weight_version(self, weight_version: int) -> None:
        """Make older prefixes unreachable."""
        super().set_weight_version(weight_version)
        self.journal.append(Reweighted(weight_version))

    def retract(self) -> tuple[str, ...]:
        """Take the blocks of all running requests."""
        self.journal.append(Retracted())
        return super().retract()

    def schedule(self, now_s: float) -> StepPlan:
        """Choose what the next step computes."""
        self.journal.append(Planned(now_s))
        self._starts_s.append(now_s)
        return super().schedule(now_s)

    def settle(self, plan: StepPlan, result: StepResult, now_s: float) -> list[SequenceUpdate]:
        """Take in what the runner computed."""
        self.journal.append(Stepped(self._starts_s.popleft(), now_s, plan, result))
        return super().settle(plan, result, now_s)


@dataclass(frozen=True)
class ScheduledStep:
    """What a step computed, without what the runner alone needs.

    Attributes:
        step: Its number.
        start_s: When it was planned.
        items: Sequences, their tokens, positions and blocks.
        new: Requests the runner met.
        finished: Sequences it could forget.
    """

    step: int
    start_s: float
    items: tuple[StepItem, ...]
    new: tuple[str, ...]
    finished: tuple[int, ...]


def schedule_trace(journal: Iterable[Entry]) -> tuple[ScheduledStep, ...]:
    """Return the steps of a journal."""
    return tuple(
        _scheduled(entry.plan, entry.start_s) for entry in journal if isinstance(entry, Stepped)
    )


def replay(journal: Sequence[Entry], scheduler: Scheduler) -> tuple[ScheduledStep, ...]:
    """Run a journal again and return what the scheduler decided.

    Args:
        journal: Of an engine whose scheduler was configured alike.
        scheduler: A new one.
    """
    trace: list[ScheduledStep] = []
    plans: deque[StepPlan] = deque()
    for entry in journal:
        if isinstance(entry, Submitted):
            scheduler.submit(entry.request)
        elif isinstance(entry, Ended):
            scheduler.finish(entry.request_id, entry.reason)
        elif isinstance(entry, Reweighted):
            scheduler.set_weight_version(entry.weight_version)
        elif isinstance(entry, Retracted):
            scheduler.retract()
        elif isinstance(entry, Planned):
            plans.append(scheduler.schedule(entry.start_s))
            trace.append(_scheduled(plans[-1], entry.start_s))
        else:
            scheduler.settle(plans.popleft(), entry.result, entry.end_s)
    return tuple(trace)


def _scheduled(plan: StepPlan, start_s: float) -> ScheduledStep:
    new = tuple(sequence.request_id for sequence in plan.new)
    return ScheduledStep(plan.step, start_s, plan.items, new, plan.finished)


def fit_step_time(journal: Iterable[Entry]) -> LinearStepTime:
    """Learn how long steps take: least squares of relative errors, no price below zero.

    A step lasts until the next one begins if sequences go on without a pause, so that what the
    engine does between steps counts too.

    Raises:
        ConfigError: fewer than three steps computed anything.
    """
    steps = [e for e in journal if isinstance(e, Stepped) and e.plan.items and e.end_s > e.start_s]
    if len(steps) < 3:
        raise ConfigError(f"{len(steps)} steps show no prices", fix="record at least three steps")
    features = np.array([_features(step.plan) for step in steps], np.float64)
    seconds = np.array([_duration(*pair) for pair in zip_longest(steps, steps[1:])])
    prices = non_negative(features / seconds[:, None], np.ones(len(seconds)))
    # Relative errors of noisy times pull prices below the mean; what a run takes is the sum.
    predicted = features @ prices
    prices *= np.minimum(seconds, _OUTLIER * predicted).sum() / predicted.sum()
    base_s, per_token_s, per_context_s = prices.tolist()
    return LinearStepTime(max(base_s, 1e-9), per_token_s, per_context_s)


def _duration(step: Stepped, following: Stepped | None) -> float:
    ids = {item.id for item in step.plan.items}
    if following is None or not any(item.id in ids for item in following.plan.items):
        return step.end_s - step.start_s
    return following.start_s - step.start_s


def _features(plan: StepPlan) -> tuple[float, float, float]:
    context = sum(item.start + len(item.tokens) for item in plan.items)
    return 1.0, float(plan.num_tokens), float(context)
