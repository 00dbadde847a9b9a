"""One step of group-relative policy optimization: rollout, scoring, training, handing weights over.

Colocated, every device does one thing after the other and the step is the sum. Split, one group of
devices generates while the other trains on the samples of the step before (one step off policy),
so the step is the longer of both plus the hand-over; on policy, both wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weft.core.errors import ConfigError
from weft.plan.figure import Figure
from weft.plan.hardware.cluster import Cluster
from weft.plan.hardware.links import Link, link
from weft.plan.inference.constants import interval_factor as serving_factor
from weft.plan.inference.step import StepModel
from weft.plan.layout import TrainingLayout
from weft.plan.ledger import fit_memory, rank_ledger
from weft.plan.posttrain.rollout import Rollout, rollout
from weft.plan.run_estimate import interval_factor as training_factor
from weft.plan.step_time import rank_passes, step_time
from weft.plan.training_constants import training_constants
from weft.plan.workload.lengths import Lengths
from weft.spec import ModelSpec

_NUM_REPLICAS_WALKED = 4


@dataclass(frozen=True, kw_only=True)
class PolicyWork:
    """What a step asks for.

    Attributes:
        num_prompts: Prompts per step.
        group_size: Samples per prompt (GRPO, arXiv:2402.03300).
        num_prompt_tokens: Of every prompt.
        outputs: How long samples are.
        num_updates: Optimizer steps on the samples of one rollout.
        num_scorings: Forward passes over all samples besides training: log-probabilities of the
            old policy, of a reference model.
        reward_s: Seconds the rewards take after the last sample.
        seed: Of the drawn lengths.
    """

    num_prompts: int
    group_size: int
    num_prompt_tokens: int
    outputs: Lengths
    num_updates: int = 1
    num_scorings: int = 1
    reward_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_prompts", "group_size", "num_prompt_tokens", "num_updates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="use at least 1")
        if self.num_scorings < 0 or self.reward_s < 0.0:
            raise ConfigError("num_scorings and reward_s cannot be negative")
        if self.num_samples % self.num_updates:
            raise ConfigError(
                f"{self.num_samples} samples do not split into {self.num_updates} updates",
                fix="choose a divisor",
            )

    @property
    def num_samples(self) -> int:
        return self.num_prompts * self.group_size

    def lengths(self) -> np.ndarray:
        """Return the output tokens of every sample; a prompt's samples are neighbours."""
        return self.outputs.sample(np.random.default_rng(self.seed), self.num_samples)


@dataclass(frozen=True)
class PolicyStep:
    """Where the seconds of a step go.

    Attributes:
        rollout: Of the replica that ends last.
        rollout_s: Generation.
        reward_s: Rewards.
        scoring_s: Forward passes besides training.
        training_s: Optimizer steps.
        switch_s: Handing weights over, and on shared devices moving training state out and in.
        total_s: Of a step.
        busy: Share of its time each group of devices works, by name.
        num_tokens: Prompt and output tokens of all samples.
        num_devices: All of them.
    """

    rollout: Rollout
    rollout_s: Figure
    reward_s: float
    scoring_s: Figure
    training_s: Figure
    switch_s: float
    total_s: Figure
    busy: dict[str, float]
    num_tokens: int
    num_devices: int

    @property
    def tokens_per_s_per_device(self) -> float:
        return self.num_tokens / self.total_s.value / self.num_devices


def colocated_step(
    spec: ModelSpec,
    work: PolicyWork,
    layout: TrainingLayout,
    cluster: Cluster,
    replica: StepModel,
    *,
    host: Link | None = None,
) -> PolicyStep:
    """Predict a step in which all devices generate, then train.

    Optimizer and gradients are moved to the host while samples are drawn (``host`` is the link of
    one device to it), unless they fit beside weights and cache as the engine sizes it anyway.

    Raises:
        ConfigError: replicas do not divide the devices.
        ResourceError: training does not fit, or the cache does not hold the longest sample.
    """
    generation = _generation(work, replica, cluster.num_devices)
    scoring, training = _training(spec, work, layout, cluster)
    rollout_s = Figure.within(generation.seconds, serving_factor("max load"), "s", "fit")
    gather_s = _hand_over_seconds(replica, cluster)
    moved = 2.0 * _moved_bytes(spec, layout, replica, cluster)
    switch_s = gather_s + (host or link("pcie4")).seconds(moved)
    total = _sum(rollout_s, scoring, training, work.reward_s + switch_s)
    working_s = generation.seconds + scoring.value + training.value
    return PolicyStep(
        rollout=generation,
        rollout_s=rollout_s,
        reward_s=work.reward_s,
        scoring_s=scoring,
        training_s=training,
        switch_s=switch_s,
        total_s=total,
        busy={"all devices": working_s / total.value},
        num_tokens=_num_tokens(work),
        num_devices=cluster.num_devices,
    )


def split_step(
    spec: ModelSpec,
    work: PolicyWork,
    layout: TrainingLayout,
    trainer: Cluster,
    replica: StepModel,
    *,
    num_rollout_devices: int,
    overlap: bool = True,
) -> PolicyStep:
    """Predict a step in which some devices generate and others train.

    Args:
        spec: The model.
        work: Of a step.
        layout: How it is trained, on ``trainer``.
        trainer: Devices that train.
        replica: Step times of one replica.
        num_rollout_devices: Devices that generate.
        overlap: Train on the samples of the step before while drawing the next ones.

    Raises:
        ConfigError: replicas do not divide the devices.
        ResourceError: training does not fit, or the cache does not hold the longest sample.
    """
    generation = _generation(work, replica, num_rollout_devices)
    scoring, training = _training(spec, work, layout, trainer)
    rollout_s = Figure.within(generation.seconds, serving_factor("max load"), "s", "fit")
    switch_s = _hand_over_seconds(replica, trainer)
    drawn = _sum(rollout_s, work.reward_s)
    learnt = _sum(scoring, training)
    together = _longest(drawn, learnt) if overlap else _sum(drawn, learnt)
    total = _sum(together, switch_s)
    return PolicyStep(
        rollout=generation,
        rollout_s=rollout_s,
        reward_s=work.reward_s,
        scoring_s=scoring,
        training_s=training,
        switch_s=switch_s,
        total_s=total,
        busy={
            "rollout devices": generation.seconds / total.value,
            "training devices": learnt.value / total.value,
        },
        num_tokens=_num_tokens(work),
        num_devices=num_rollout_devices + trainer.num_devices,
    )


def _generation(work: PolicyWork, replica: StepModel, num_devices: int) -> Rollout:
    """Return the rollout of the slowest replica, groups dealt in turn."""
    per_replica = replica.deployment.cluster.num_devices
    if num_devices % per_replica:
        raise ConfigError(
            f"replicas of {per_replica} devices do not divide {num_devices} devices",
            fix="choose a tensor parallel degree that divides them",
        )
    num_replicas = num_devices // per_replica
    groups = work.lengths().reshape(work.num_prompts, work.group_size)
    dealt = [groups[first::num_replicas] for first in range(min(num_replicas, work.num_prompts))]
    # The end is decided by long samples and by much work: only those candidates are walked.
    dealt.sort(key=lambda own: (-int(own.max()), -int(own.sum())))
    walked = dealt[:_NUM_REPLICAS_WALKED]
    walked.append(max(dealt, key=lambda own: int(own.sum())))
    found = (
        rollout(
            replica,
            work.num_prompt_tokens,
            [int(length) for length in own.ravel()],
            group_size=work.group_size,
        )
        for own in walked
    )
    return max(found, key=lambda one: one.seconds)


def _training(
    spec: ModelSpec, work: PolicyWork, layout: TrainingLayout, cluster: Cluster
) -> tuple[Figure, Figure]:
    """Return the seconds of all scorings and of all optimizer steps."""
    constants = training_constants()
    factor = training_factor(spec, constants)
    length = work.num_prompt_tokens + int(work.lengths().mean())
    length += -length % layout.context
    layout = layout.but(length=length, global_batch=work.num_samples // work.num_updates)
    fit_memory(spec, layout, cluster.device.memory_bytes).require()
    step_s = step_time(spec, layout, cluster, constants).total_s
    busiest = max(
        part.forward_s + (part.tensor_s + part.context_s + part.expert_s) / 3.0
        for part in rank_passes(spec, layout, cluster, constants)
    )
    # Stages work at the same time but for filling the pipeline once.
    forward_s = busiest * (layout.num_micro + layout.pipeline - 1) * work.num_updates
    return (
        Figure.within(work.num_scorings * forward_s, factor, "s", "fit"),
        Figure.within(work.num_updates * step_s, factor, "s", "fit"),
    )


def _hand_over_seconds(replica: StepModel, trainer: Cluster) -> float:
    """Every device of a replica receives its part of the weights over its own link.

    Replicas pass pieces on while they receive the next, so their number costs nothing.
    """
    return trainer.scale_out.seconds(replica.deployment.weight_bytes)


def _moved_bytes(
    spec: ModelSpec, layout: TrainingLayout, replica: StepModel, cluster: Cluster
) -> float:
    """Training state of a device that has to make room for the engine."""
    states = max(rank_ledger(spec, layout, rank).states for rank in range(layout.pipeline))
    cache = replica.deployment.cache_bytes()
    free = cluster.device.memory_bytes - replica.deployment.weight_bytes - cache
    return states if states > free else 0.0


def _num_tokens(work: PolicyWork) -> int:
    return work.num_samples * work.num_prompt_tokens + int(work.lengths().sum())


def _longest(first: Figure, second: Figure) -> Figure:
    pairs = ((first.low, second.low), (first.value, second.value), (first.high, second.high))
    low, value, high = (max(pair) for pair in pairs)
    return Figure(value, low, high, "s", "fit")


def _sum(*parts: Figure | float) -> Figure:
    """Add seconds; ends add, as errors of one model's parts go together."""
    low = sum(part.low if isinstance(part, Figure) else part for part in parts)
    value = sum(part.value if isinstance(part, Figure) else part for part in parts)
    high = sum(part.high if isinstance(part, Figure) else part for part in parts)
    return Figure(value, low, high, "s", "fit")
