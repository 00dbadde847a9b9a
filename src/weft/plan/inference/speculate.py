"""Speculative decoding on a deployment: where it pays and where it costs.

The formulas are ``weft.plan.speculation``'s; here the times come from the step model, so checking
several tokens per sequence stops being free as the batch grows and decode becomes compute-bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weft.plan.inference.step import StepModel
from weft.plan.speculation import expected_tokens, speed_up
from weft.plan.work import Segment, Work


@dataclass(frozen=True)
class SpeculationPoint:
    """One batch size.

    Attributes:
        batch: Sequences of one data-parallel group.
        num_drafted: Tokens drafted per step; the best number.
        tokens_per_step: Mean tokens a sequence gains per step.
        speed_up: Over decoding without drafts; 1 where drafting does not pay.
    """

    batch: int
    num_drafted: int
    tokens_per_step: float
    speed_up: float


def speculation_curve(
    target: StepModel,
    draft: StepModel | None,
    *,
    acceptance: float,
    context: int,
    batches: Sequence[int],
    most_drafted: int = 8,
) -> tuple[SpeculationPoint, ...]:
    """Return the best number of drafts at each batch size.

    Args:
        target: The model that is served.
        draft: The model that drafts; none for drafts that cost nothing (n-grams).
        acceptance: Chance that a drafted token is kept.
        context: Tokens of each sequence.
        batches: Sequences of one data-parallel group.
        most_drafted: Most tokens drafted per step.
    """
    return tuple(
        _best(target, draft, acceptance, context, batch, most_drafted) for batch in batches
    )


def _best(
    target: StepModel,
    draft: StepModel | None,
    acceptance: float,
    context: int,
    batch: int,
    most_drafted: int,
) -> SpeculationPoint:
    target_s = target.seconds(Work.decode(batch, context))
    draft_s = 0.0 if draft is None else draft.cost(Work.decode(batch, context)).children[0].seconds
    best = SpeculationPoint(batch, 0, 1.0, 1.0)
    for num_drafted in range(1, most_drafted + 1):
        check = Work((Segment(num_drafted + 1, context - 1, batch),))
        check_s = target.seconds(check, graphs=True)
        gain = speed_up(
            acceptance, num_drafted, draft_s=draft_s, target_s=target_s, check_s=check_s
        )
        if gain > best.speed_up:
            tokens = expected_tokens(acceptance, num_drafted)
            best = SpeculationPoint(batch, num_drafted, tokens, gain)
    return best
