"""``weft plan grpo``: a step of reinforcement learning, on shared devices or on two groups."""

from __future__ import annotations

from dataclasses import dataclass

from cyclopts import Parameter

from weft.cli.plan.inputs import cluster_of, deployment_of, layout_of, model_of
from weft.cli.plan.options import LAYOUT, TRAFFIC, DeploymentOptions, LayoutOptions, Output
from weft.cli.plan.output import emit
from weft.core.errors import ConfigError, WeftError
from weft.plan.answer import Answer, Item, Listing, Parts, listing, seconds
from weft.plan.economy import run_bill
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.step import StepModel
from weft.plan.posttrain.step import PolicyStep, PolicyWork, colocated_step, split_step
from weft.plan.workload.lengths import FixedLength, Lengths, LogNormalLength
from weft.spec import ModelSpec


@Parameter(name="*", group=TRAFFIC)
@dataclass(frozen=True)
class PolicyOptions:
    """What a step asks for.

    Attributes
    ----------
    prompts
        Prompts per step.
    group
        Samples per prompt.
    isl
        Prompt tokens.
    osl
        Output tokens; the median if lengths vary.
    spread
        Standard deviation of the logarithm of output lengths; 0 makes all equal.
    osl_max
        Longest output.
    updates
        Optimizer steps per rollout.
    scorings
        Forward passes over all samples besides training (old policy, reference model).
    reward
        Seconds the rewards take.
    """

    prompts: int = 256
    group: int = 8
    isl: int = 512
    osl: int = 2048
    spread: float = 0.5
    osl_max: int = 16384
    updates: int = 1
    scorings: int = 1
    reward: float = 0.0

    def work(self) -> PolicyWork:
        """Return it as the planner's."""
        fixed = self.spread == 0.0
        outputs: Lengths = (
            FixedLength(self.osl) if fixed else LogNormalLength(self.osl, self.spread, self.osl_max)
        )
        return PolicyWork(
            num_prompts=self.prompts,
            group_size=self.group,
            num_prompt_tokens=self.isl,
            outputs=outputs,
            num_updates=self.updates,
            num_scorings=self.scorings,
            reward_s=self.reward,
        )


@Parameter(name="*", group=LAYOUT)
@dataclass(frozen=True)
class RolloutOptions:
    """Who generates.

    Attributes
    ----------
    rollout
        Devices that generate while the others train; 0 shares all devices.
    rollout_tp
        Devices of one replica of the engine.
    on_policy
        Split devices wait for each other instead of training one step behind.
    price
        Of one device and hour, in any currency.
    """

    rollout: int = 0
    rollout_tp: int = 1
    on_policy: bool = False
    price: float = 2.0


def grpo(
    model: str,
    *,
    hw: str = "H100x16",
    who: RolloutOptions = RolloutOptions(),
    work: PolicyOptions = PolicyOptions(),
    layout: LayoutOptions = LayoutOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Predict rollout, scoring, training and hand-over of a GRPO step, shared or split.

    Parameters
    ----------
    model
        A name from `weft model list`, a folder or a config.json.
    hw
        All devices, such as H100x64.
    """
    name, spec = model_of(model)
    cluster = cluster_of(hw)
    if not 0 <= who.rollout < cluster.num_devices:
        raise ConfigError(
            f"--rollout {who.rollout} of {cluster.num_devices} devices",
            fix="leave at least one device to train, or use 0 to share all",
        )
    step = estimate(spec, cluster, who, work.work(), layout)
    others = _others(spec, cluster, who, work.work(), layout)
    emit(_answer(f"{name}  {hw}", step, who, cluster, others), output)


def estimate(
    spec: ModelSpec,
    cluster: Cluster,
    who: RolloutOptions,
    work: PolicyWork,
    layout: LayoutOptions,
) -> PolicyStep:
    """Return one way to share the devices."""
    engine = cluster.with_devices(who.rollout_tp)
    options = DeploymentOptions(tp=who.rollout_tp)
    replica = StepModel(deployment_of(spec, engine, options))
    trainer = cluster.with_devices(cluster.num_devices - who.rollout)
    cut = layout_of(layout, trainer.num_devices)
    if who.rollout == 0:
        return colocated_step(spec, work, cut, cluster, replica)
    return split_step(
        spec, work, cut, trainer, replica,
        num_rollout_devices=who.rollout, overlap=not who.on_policy,
    )  # fmt: skip


def _others(
    spec: ModelSpec,
    cluster: Cluster,
    who: RolloutOptions,
    work: PolicyWork,
    layout: LayoutOptions,
) -> Listing:
    """Set the other ways to share the devices beside it."""
    rows = []
    total = cluster.num_devices
    for eighths in range(7):
        rollout = total * eighths // 8 // who.rollout_tp * who.rollout_tp
        if eighths and rollout == 0:
            continue
        title = f"{rollout} generate, {total - rollout} train" if rollout else "all do both"
        choice = RolloutOptions(rollout, who.rollout_tp, who.on_policy, who.price)
        try:
            step = estimate(spec, cluster, choice, work, layout)
        except WeftError as error:
            rows.append((title, "", "", error.message[:60]))
            continue
        rate = f"{step.tokens_per_s_per_device:,.0f}"
        idle = ", ".join(f"{name} {100 * share:.0f} %" for name, share in step.busy.items())
        rows.append((title, seconds(step.total_s.value), rate, idle))
    return listing("ways to share the devices", ("who", "step", "tok/s/device", "busy"), rows)


def _answer(
    title: str, step: PolicyStep, who: RolloutOptions, cluster: Cluster, others: Listing
) -> Answer:
    power_w = cluster.device.power_w
    bill = run_bill(step.num_devices, step.total_s.value, price_per_hour=who.price, power_w=power_w)
    combined = "the longer of both groups + hand-over" if who.rollout else "sum of the parts below"
    own = step.rollout
    return Answer(
        title=title,
        facts=(f"{step.num_tokens:,} tokens per step",),
        items=(
            Item.of("step time", step.total_s, combined),
            Item("rate per device", step.tokens_per_s_per_device, "tok/s", "fit",
                 "all prompt and output tokens / step time / devices"),
            Item("output rate of the slowest replica", own.tokens_per_s, "tok/s", "fit"),
            Item("its largest batch", own.max_running, "sequences", "fit",
                 "what the cache holds with half of each output to come"),
            Item("its tail", own.tail_s / own.seconds, "share", "fit",
                 "time with less than half of the largest batch"),
            *(Item(f"busy, {name}", share, "share", "fit") for name, share in step.busy.items()),
            Item("cost of a step", bill.money, "", "fit", "device hours x price"),
        ),
        parts=(
            Parts(
                "time of a step",
                "s",
                {
                    "rollout": step.rollout_s.value,
                    "rewards": step.reward_s,
                    "scoring": step.scoring_s.value,
                    "training": step.training_s.value,
                    "hand-over": step.switch_s,
                },
            ),
        ),
        listings=(others,),
    )  # fmt: skip
