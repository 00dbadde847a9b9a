"""``weft plan spec``: where speculative decoding pays and where it costs."""

from __future__ import annotations

from weft.cli.plan.inputs import cluster_of, deployment_of, model_of
from weft.cli.plan.options import DeploymentOptions, Output
from weft.cli.plan.output import emit
from weft.plan.answer import Answer, Curve, Item, Plot, listing
from weft.plan.inference.speculate import SpeculationPoint, speculation_curve
from weft.plan.inference.step import StepModel
from weft.plan.speculation import draft_speed_up, expected_tokens, speed_up
from weft.plan.work import Segment, Work

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def spec(
    model: str,
    *,
    draft: str | None = None,
    hw: str = "H100",
    alpha: float = 0.7,
    gamma: int = 4,
    context: int = 2048,
    deployment: DeploymentOptions = DeploymentOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Predict the speed-up of speculative decoding by batch size.

    Parameters
    ----------
    model
        The model that is served.
    draft
        The model that drafts; none drafts for free (n-grams).
    hw
        Devices of one replica.
    alpha
        Chance that a drafted token is kept.
    gamma
        Tokens drafted per step.
    context
        Tokens of each sequence.
    """
    name, target_spec = model_of(model)
    cluster = cluster_of(hw)
    target = StepModel(deployment_of(target_spec, cluster, deployment))
    drafter = None
    if draft is not None:
        drafter = StepModel(deployment_of(model_of(draft)[1], cluster, deployment))
    points = speculation_curve(target, drafter, acceptance=alpha, context=context, batches=_BATCHES)
    fixed = [_fixed(target, drafter, alpha, gamma, context, batch) for batch in _BATCHES]
    emit(_answer(f"{name} on {hw}, drafts by {draft or 'n-grams'}", alpha, gamma, points, fixed),
         output)  # fmt: skip


def _fixed(
    target: StepModel, draft: StepModel | None, alpha: float, gamma: int, context: int, batch: int
) -> float:
    """Return the speed-up of always drafting ``gamma`` tokens; below 1 it costs."""
    once_s = target.seconds(Work.decode(batch, context))
    draft_s = 0.0 if draft is None else draft.seconds(Work.decode(batch, context))
    check = Work((Segment(gamma + 1, context - 1, batch),))
    check_s = target.seconds(check, graphs=True)
    return speed_up(alpha, gamma, draft_s=draft_s, target_s=once_s, check_s=check_s)


def _answer(
    title: str,
    alpha: float,
    gamma: int,
    points: tuple[SpeculationPoint, ...],
    fixed: list[float],
) -> Answer:
    losing = [batch for batch, gain in zip(_BATCHES, fixed, strict=True) if gain < 1.0]
    rows = [
        (p.batch, f"{gain:.2f}x", p.num_drafted, f"{p.tokens_per_step:.2f}", f"{p.speed_up:.2f}x")
        for p, gain in zip(points, fixed, strict=True)
    ]
    columns = ("batch", f"speed-up at {gamma}", "best drafts", "tokens per step", "speed-up")
    formula = "(1 - alpha^(gamma+1)) / (1 - alpha) (arXiv:2211.17192)"
    free = "the same when checking and drafting cost nothing more than one step"
    batches = tuple(float(p.batch) for p in points)
    return Answer(
        title=title,
        facts=(f"acceptance {alpha:g}, {gamma} drafts per step",),
        items=(
            Item("tokens per step", expected_tokens(alpha, gamma), "", formula=formula),
            Item("most it can gain", draft_speed_up(alpha, gamma, 0.0), "x", formula=free),
            Item("turns negative at batch", losing[0] if losing else "never up to 512", "",
                 "fit", "first batch whose speed-up is below 1"),
        ),
        listings=(listing("by batch size", columns, rows),),
        plots=(Plot("speed-up by batch size", "sequences", "times faster", (
            Curve(f"{gamma} drafts", batches, tuple(fixed)),
            Curve("best number", batches, tuple(p.speed_up for p in points)),
        )),),
    )  # fmt: skip
