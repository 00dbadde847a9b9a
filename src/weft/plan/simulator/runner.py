"""The runner of a simulation: it computes nothing and lets the predicted time pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from weft.plan.workload.arrival import DRAWN, made_up_token
from weft.sched.budget import StepTime as LinearPrices
from weft.sched.loop import VirtualClock
from weft.sched.plan import Sampled, StepPlan, StepResult

StepTime = Callable[[StepPlan], float]
"""Seconds that one step takes."""


@dataclass(frozen=True)
class Scaled:
    """Step times of another model times a factor."""

    step_time: StepTime
    factor: float

    def __call__(self, plan: StepPlan) -> float:
        """Return the seconds of one step."""
        return self.factor * self.step_time(plan)


class LinearStepTime(LinearPrices):
    """The scheduler's own prices of a step, asked for whole plans."""

    def __call__(self, plan: StepPlan) -> float:
        """Return the seconds of one step."""
        num_context_tokens = sum(item.start + len(item.tokens) for item in plan.items)
        return self.step_s(plan.num_tokens, num_context_tokens)


class SimRunner:
    """A runner that computes nothing and lets the predicted time pass.

    Attributes:
        last: The plan executed last.
    """

    def __init__(self, clock: VirtualClock, step_time: StepTime) -> None:
        self.clock = clock
        self.step_time = step_time
        self.last = StepPlan(-1)

    def execute(self, plan: StepPlan) -> StepResult:
        """Advance the clock; answer each sampling item with a token nobody else has drawn."""
        self.last = plan
        self.clock.advance(self.step_time(plan))
        ends = {item.id: item.start + len(item.tokens) for item in plan.items if item.sample}
        return StepResult(
            {id: (Sampled(made_up_token(DRAWN, id, end), 0.0),) for id, end in ends.items()}
        )

    def forget(self, ids: tuple[int, ...]) -> None:
        """Do nothing: this runner remembers no sequence."""
