"""How long one training step takes, part by part.

Kernels of each stage by the roofline (``weft.plan.kernels``), forward, backward and recomputed;
communication of tensor, context, expert, pipeline and data parallelism by
``weft.plan.collectives``, hidden behind computation where the layout allows; the pipeline's bubble
from the slowest stage; the optimizer. Constants that no data sheet has are in
``TrainingConstants``: few, physical, the same for every model and cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.plan.accounting import distinct_layers, head_ops, layer_ops
from weft.plan.hardware.cluster import Cluster
from weft.plan.kernels import KernelModel, op_cost
from weft.plan.layout import TrainingLayout
from weft.plan.ops import Op
from weft.plan.stages import RankWeights, fullest_weights, layer_slices
from weft.plan.step_communication import (
    context_seconds,
    data_seconds,
    expert_seconds,
    pipeline_seconds,
    tensor_seconds,
)
from weft.plan.training_constants import TrainingConstants, training_constants
from weft.spec import AttentionSpec, LayerSpec, ModelSpec


@dataclass(frozen=True)
class Pass:
    """Seconds of one layer, one micro batch, one device.

    Attributes:
        forward_s: Kernels forward.
        backward_s: Kernels backward, without recomputation.
        recompute_s: Kernels the backward pass repeats.
        tensor_s: Exposed communication of tensor parallelism, both passes.
        context_s: Exposed communication of context parallelism.
        expert_s: Exposed communication of expert parallelism.
    """

    forward_s: float = 0.0
    backward_s: float = 0.0
    recompute_s: float = 0.0
    tensor_s: float = 0.0
    context_s: float = 0.0
    expert_s: float = 0.0

    @property
    def compute_s(self) -> float:
        return self.forward_s + self.backward_s + self.recompute_s

    @property
    def total_s(self) -> float:
        return self.compute_s + self.tensor_s + self.context_s + self.expert_s

    def __add__(self, other: Pass) -> Pass:
        return Pass(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    def times(self, count: float) -> Pass:
        """Return ``count`` such layers."""
        return Pass(*(value * count for value in _values(self)))


def _values(part: Pass) -> tuple[float, ...]:
    return (part.forward_s, part.backward_s, part.recompute_s, part.tensor_s, part.context_s,
            part.expert_s)  # fmt: skip


@dataclass(frozen=True)
class StepTime:
    """Where the seconds of a step go.

    Attributes:
        compute_s: Kernels of the busiest stage, recomputation included.
        recompute_s: The repeated part of them.
        tensor_s: Exposed tensor-parallel communication.
        context_s: Exposed context-parallel communication.
        expert_s: Exposed expert-parallel communication.
        pipeline_s: Messages between stages that wait.
        bubble_s: The busiest stage waits for others.
        data_s: Exposed gradients and sharded weights.
        optimizer_s: The update.
        host_s: Everything that launches nothing.
    """

    compute_s: float
    recompute_s: float
    tensor_s: float
    context_s: float
    expert_s: float
    pipeline_s: float
    bubble_s: float
    data_s: float
    optimizer_s: float
    host_s: float

    @property
    def total_s(self) -> float:
        return (
            self.compute_s + self.tensor_s + self.context_s + self.expert_s + self.pipeline_s
            + self.bubble_s + self.data_s + self.optimizer_s + self.host_s
        )  # fmt: skip


def step_time(
    spec: ModelSpec,
    layout: TrainingLayout,
    cluster: Cluster,
    constants: TrainingConstants | None = None,
) -> StepTime:
    """Predict the parts of one optimizer step."""
    constants = constants or training_constants()
    ranks = rank_passes(spec, layout, cluster, constants)
    busiest = max(ranks, key=lambda part: part.total_s)
    num_micro = layout.num_micro
    others_s = sum(part.total_s for part in ranks) - busiest.total_s
    bubble_s = others_s / layout.chunks
    send_s = pipeline_seconds(spec, layout, cluster, constants)
    weights = fullest_weights(spec, layout)
    data_s = data_seconds(busiest.compute_s, weights, layout, cluster, constants)
    return StepTime(
        compute_s=num_micro * busiest.compute_s,
        recompute_s=num_micro * busiest.recompute_s,
        tensor_s=num_micro * busiest.tensor_s,
        context_s=num_micro * busiest.context_s,
        expert_s=num_micro * busiest.expert_s,
        pipeline_s=send_s,
        bubble_s=bubble_s,
        data_s=data_s,
        optimizer_s=_optimizer_seconds(weights, layout, cluster, constants),
        host_s=constants.host_s + _engine_seconds(spec, layout, constants),
    )


def _engine_seconds(spec: ModelSpec, layout: TrainingLayout, constants: TrainingConstants) -> float:
    if not layout.blocking_engine:
        return 0.0
    layers = -(-spec.num_layers // layout.pipeline)
    return constants.engine_s * layers * layout.num_micro


def rank_passes(
    spec: ModelSpec, layout: TrainingLayout, cluster: Cluster, constants: TrainingConstants
) -> list[Pass]:
    """Return what one micro batch takes on every pipeline rank."""
    layers = {
        layer: layer_pass(layer, spec.dim, layout, cluster, constants)
        for layer in distinct_layers(spec)
    }
    ranks = []
    stages = layer_slices(spec, layout)
    for rank in range(layout.pipeline):
        total = Pass()
        for stage in range(rank, len(stages), layout.pipeline):
            for layer, count in stages[stage].items():
                total = total + layers[layer].times(count)
        if rank == layout.pipeline - 1:
            total = total + _head_pass(spec, layout, cluster, constants)
            if spec.num_mtp_layers:
                last = layers[spec.layers[-1]] + _head_pass(spec, layout, cluster, constants)
                total = total + last.times(spec.num_mtp_layers)
        ranks.append(total)
    return ranks


def _model(constants: TrainingConstants) -> KernelModel:
    return KernelModel(inner_half=constants.inner_half)


def _seconds(
    op: Op, layout: TrainingLayout, cluster: Cluster, constants: TrainingConstants
) -> float:
    """One execution, with the share a power-limited device sustains over hours."""
    device = cluster.device
    cost = op_cost(op, device, _model(constants))
    if op.kind == "elementwise":
        return cost.seconds * constants.traffic
    if cost.bound != "compute":
        return cost.seconds
    if op.kind == "attention":
        return cost.seconds / constants.attention(device, layout.attention)
    return cost.seconds / constants.sustained(device, op.dtype)


def _head_pass(
    spec: ModelSpec, layout: TrainingLayout, cluster: Cluster, constants: TrainingConstants
) -> Pass:
    ops = head_ops(spec, layout.work, layout.shard, layout.dtypes)
    forward_s = sum(_seconds(op, layout, cluster, constants) for op in ops)
    factor = constants.gemm_backward / (2.0 if layout.frozen else 1.0)
    return Pass(forward_s=forward_s, backward_s=factor * forward_s)


def layer_pass(
    layer: LayerSpec,
    dim: int,
    layout: TrainingLayout,
    cluster: Cluster,
    constants: TrainingConstants,
) -> Pass:
    """Return what one micro batch takes in one layer."""
    ops = layer_ops(layer, dim, layout.work, layout.shard, layout.dtypes, mla_mode="expanded")
    forward_s = backward_s = attention_s = last_s = 0.0
    for op in ops:
        once_s = _seconds(op, layout, cluster, constants)
        factor = constants.gemm_backward
        if op.kind == "attention":
            factor = constants.attention_backward
            if layout.attention == "scores" and isinstance(layer.mixer, AttentionSpec):
                once_s = _score_seconds(layer.mixer, layout, cluster, constants)
                factor = constants.gemm_backward
            attention_s += once_s
        elif op.kind == "gemm":
            factor /= 2.0 if layout.frozen else 1.0
            last_s = once_s
        forward_s += once_s
        backward_s += factor * once_s
    cast_s = _cast_seconds(ops, layout, cluster, constants)
    forward_s, backward_s = forward_s + cast_s, backward_s + cast_s
    recompute_s = 0.0
    if layout.recompute == "full":
        recompute_s = forward_s - (last_s if layout.early_stop else 0.0)
    elif layout.recompute == "selective":
        # Fully sharded trainers repeat every other layer, the others attention alone.
        recompute_s = forward_s / 2 if layout.zero == 3 else attention_s
    recompute_s *= layout.recompute_share
    kernels_s = forward_s + backward_s + recompute_s
    return Pass(
        forward_s=forward_s,
        backward_s=backward_s,
        recompute_s=recompute_s,
        tensor_s=tensor_seconds(layer, dim, layout, cluster, constants, kernels_s),
        context_s=context_seconds(layer, layout, cluster, attention_s, constants),
        expert_s=expert_seconds(layer, dim, layout, cluster, constants, kernels_s),
    )


def _cast_seconds(
    ops: tuple[Op, ...], layout: TrainingLayout, cluster: Cluster, constants: TrainingConstants
) -> float:
    """Casts of one pass to the narrow type of products; weights are cast once per step."""
    if layout.dtype not in ("float8", "float4"):
        return 0.0
    products = [op for op in ops if op.kind == "gemm" and op.dtype == layout.dtype]
    numbers = sum(op.groups * op.shape[0] * (op.shape[1] + op.shape[2]) / 2 for op in products)
    return constants.quantise_bytes * numbers / cluster.device.achievable_bandwidth


def _score_seconds(
    mixer: AttentionSpec, layout: TrainingLayout, cluster: Cluster, constants: TrainingConstants
) -> float:
    """Unfused attention: two batched products over all pairs, scores in memory in between."""
    heads, width = mixer.num_heads / layout.tensor, mixer.head_dim
    pairs = layout.micro_batch * float(layout.length) ** 2
    device = cluster.device
    rate = device.achievable_flops("bfloat16") * constants.sustained(device, "bfloat16")
    compute_s = 4.0 * pairs * heads * width / rate * (1.0 + constants.batched_half / width)
    # Scores are written, masked and normalised (read, write), dropped out (read, write) and read.
    traffic_s = 12.0 * pairs * heads / device.achievable_bandwidth * constants.traffic
    return compute_s + traffic_s


def _optimizer_seconds(
    weights: RankWeights,
    layout: TrainingLayout,
    cluster: Cluster,
    constants: TrainingConstants,
) -> float:
    """Moments, master weights and gradients are read and written once."""
    if layout.frozen:
        return 0.0
    dense = weights.dense / (layout.num_shards if layout.zero >= 1 else 1)
    experts = weights.experts / (layout.num_expert_shards if layout.zero >= 1 else 1)
    return constants.optimizer_bytes * (dense + experts) / cluster.device.achievable_bandwidth
