"""The best training layouts: memory first, then step time; and why the others fell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from weft.core.errors import ConfigError, ResourceError
from weft.plan.hardware.cluster import Cluster
from weft.plan.layout import TrainingLayout
from weft.plan.ledger import training_ledger
from weft.plan.memory_constants import memory_constants
from weft.plan.search.rules import rule
from weft.plan.search.space import TrainingSpace
from weft.plan.stages import fullest_weights
from weft.plan.step_time import StepTime, step_time
from weft.plan.training_constants import TrainingConstants, training_constants
from weft.plan.zero import StateBytes
from weft.spec import ModelSpec

# From this share of memory on, memory is what binds a layout.
_FULL = 0.9
_AXES = {
    "tensor": "tp", "pipeline": "pp", "chunks": "vp", "context": "cp", "expert": "ep",
    "micro_batch": "mbs",
}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A layout with what it takes.

    Attributes:
        layout: How.
        memory_bytes: On the fullest device.
        available_bytes: There.
        step: Parts of the step time; none if it does not fit.
        change: What makes it differ from another layout.
    """

    layout: TrainingLayout
    memory_bytes: float
    available_bytes: float
    step: StepTime | None = None
    change: str = ""

    @property
    def fits(self) -> bool:
        return self.memory_bytes <= self.available_bytes

    @property
    def step_s(self) -> float:
        """Seconds per step; infinite if it does not fit."""
        return float("inf") if self.step is None else self.step.total_s

    @property
    def binding(self) -> str:
        """What keeps it from being faster: memory if it is full, else the largest lost part."""
        if self.step is None or self.memory_bytes > _FULL * self.available_bytes:
            return "memory"
        lost = {
            name.removesuffix("_s"): getattr(self.step, name)
            for name in self.step.__dataclass_fields__
            if name != "compute_s"
        }
        name = max(lost, key=lambda part: lost[part])
        return name if lost[name] > 0.03 * self.step.total_s else "compute"


@dataclass(frozen=True)
class TrainingSearch:
    """What a search found.

    Attributes:
        best: Fastest first.
        num_tried: Layouts looked at.
        num_fitting: Layouts that fit.
        rejected: How many fell, by reason.
    """

    best: tuple[Candidate, ...]
    num_tried: int
    num_fitting: int
    rejected: dict[str, int]


def search_training(
    spec: ModelSpec,
    cluster: Cluster,
    space: TrainingSpace,
    *,
    num_best: int = 10,
    constants: TrainingConstants | None = None,
) -> TrainingSearch:
    """Try every layout of a space.

    Raises:
        ResourceError: nothing fits; says by how much the closest layout misses.
    """
    constants = constants or training_constants()
    spec = _interned(spec)
    rejected: Counter[str] = Counter()
    fitting: list[Candidate] = []
    closest = float("inf")
    for layout in _possible(spec, cluster, space, rejected):
        available = float(cluster.device.memory_bytes)
        needed = training_ledger(spec, layout).total
        closest = min(closest, needed)
        if needed > available:
            rejected["memory"] += 1
            continue
        step = step_time(spec, layout, cluster, constants)
        fitting.append(Candidate(layout, needed, available, step))
    if not fitting:
        raise _nothing_fits(cluster, closest, rejected)
    fitting.sort(key=lambda one: one.step_s)
    refined = (_refined(spec, cluster, one, constants) for one in fitting[: 2 * num_best])
    fitting[: 2 * num_best] = sorted(refined, key=lambda one: one.step_s)
    num_tried = len(fitting) + sum(rejected.values())
    return TrainingSearch(tuple(fitting[:num_best]), num_tried, len(fitting), dict(rejected))


def _refined(
    spec: ModelSpec, cluster: Cluster, one: Candidate, constants: TrainingConstants
) -> Candidate:
    """Recompute no more layers than memory asks for."""
    if one.layout.recompute != "full":
        return one
    for sixteenths in range(1, 16):
        layout = one.layout.but(recompute_share=sixteenths / 16)
        needed = training_ledger(spec, layout).total
        if needed <= one.available_bytes:
            step = step_time(spec, layout, cluster, constants)
            return Candidate(layout, needed, one.available_bytes, step)
    return one


def neighbours(spec: ModelSpec, layout: TrainingLayout, cluster: Cluster) -> tuple[Candidate, ...]:
    """Return the layouts one change away, fastest first, those that do not fit last."""
    found = []
    available = float(cluster.device.memory_bytes)
    for text, changed in _changes(layout):
        if rule(spec, changed, cluster.devices_per_node):
            continue
        needed = training_ledger(spec, changed).total
        step = step_time(spec, changed, cluster) if needed <= available else None
        found.append(Candidate(changed, needed, available, step, text))
    return tuple(sorted(found, key=lambda one: (one.step_s, one.memory_bytes)))


def _possible(
    spec: ModelSpec, cluster: Cluster, space: TrainingSpace, rejected: Counter[str]
) -> Iterator[TrainingLayout]:
    """Yield layouts that rules allow and whose weights, gradients and optimizer fit alone."""
    num_variants = len(space.micro_batches) * len(space.recomputes)
    for cut, reason in space.cuts(spec, cluster.devices_per_node):
        if not reason and state_bytes(spec, cut) > cluster.device.memory_bytes:
            reason = "memory (weights and optimizer alone)"
        if reason:
            rejected[reason] += num_variants
            continue
        for layout in space.variants(cut):
            reason = rule(spec, layout, cluster.devices_per_node)
            if reason:
                rejected[reason] += 1
            else:
                yield layout


def state_bytes(spec: ModelSpec, layout: TrainingLayout) -> float:
    """Return a lower bound of a layout's memory, whatever its micro batch."""
    weights = fullest_weights(spec, layout)
    state = StateBytes(layout.weight_bytes, layout.gradient_bytes, 12.0)
    plain = state.sharded(layout.zero, max(1, layout.num_shards))
    routed = state.sharded(layout.zero, max(1, layout.num_expert_shards))
    return (
        weights.dense * _sum(plain)
        + weights.experts * _sum(routed)
        + memory_constants().runtime_bytes
    )


def _sum(state: StateBytes) -> float:
    return state.weights + state.gradients + state.optimizer


def _changes(layout: TrainingLayout) -> Iterator[tuple[str, TrainingLayout]]:
    for axis, short in _AXES.items():
        size = getattr(layout, axis)
        for changed in {size * 2, max(1, size // 2)} - {size}:
            yield f"{short}{changed}", _resized(layout, axis, changed)
    for recompute in ("none", "selective", "full"):
        if recompute != layout.recompute:
            yield f"recompute {recompute}", layout.but(recompute=recompute)
    for zero in (1, 3):
        if zero != layout.zero:
            yield f"zero{zero}", layout.but(zero=zero)


def _resized(layout: TrainingLayout, axis: str, size: int) -> TrainingLayout:
    """Change one degree; replicas make up for the devices."""
    if axis not in ("tensor", "pipeline", "context"):
        return layout.but(**{axis: size})
    devices = layout.data * getattr(layout, axis)
    if devices % size or (axis == "context" and layout.length % size):
        return layout.but(chunks=layout.pipeline + 10**6)  # a rule refuses it
    return layout.but(**{axis: size, "data": devices // size})


def _nothing_fits(cluster: Cluster, closest: float, rejected: Counter[str]) -> Exception:
    available = cluster.device.memory_bytes
    if closest == float("inf"):
        reasons = ", ".join(f"{reason} ({count})" for reason, count in rejected.most_common(3))
        if not any(reason.startswith("memory") for reason in rejected):
            return ConfigError(
                f"no layout is possible: {reasons}",
                fix="change the global batch or the number of devices",
            )
        return ResourceError(
            f"no layout fits: weights, gradients and optimizer alone exceed "
            f"{available / 2**30:.0f} GiB per device",
            fix="use more devices or devices with more memory",
        )
    return ResourceError(
        f"no layout fits: the smallest needs {closest / 2**30:.1f} of "
        f"{available / 2**30:.1f} GiB per device",
        fix="use more devices, shorter sequences or devices with more memory",
    )


class _ByIdentity(ModelSpec):
    """A specification compared by identity: hashing 126 layers per look-up is most of a search."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _interned(spec: ModelSpec) -> ModelSpec:
    return _ByIdentity(**{name: getattr(spec, name) for name in spec.__dataclass_fields__})
