"""Training rows: from a published configuration to a prediction of its step time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from weft.core.errors import DataError
from weft.plan.accounting import flops_per_token
from weft.plan.figure import Figure
from weft.plan.hardware.cluster import Cluster
from weft.plan.layout import AttentionKernel, Recompute, TrainingLayout
from weft.plan.ledger import rank_ledger, training_ledger
from weft.plan.memory_constants import MemoryConstants, memory_constants
from weft.plan.run_estimate import interval_factor
from weft.plan.step_time import StepTime, step_time
from weft.plan.training_constants import TrainingConstants, training_constants
from weft.plan.utilization import megatron_step_flops
from weft.plan.validate.architecture import parse_architecture
from weft.plan.validate.rows import Row
from weft.plan.validate.table import Comparison, regret, spearman
from weft.plan.zero import ZeroStage
from weft.spec import ModelSpec

THROUGHPUT = ("tokens_per_s_per_gpu", "step_time_s", "model_tflops_per_gpu", "hw_tflops_per_gpu")
MEMORY = {
    "peak_memory_gb": 1e9,
    "peak_memory_gib": 2.0**30,
    "activation_memory_gib": 2.0**30,
    "params_grads_optimizer_gib": 2.0**30,
}
"""Memory metrics and their unit in bytes."""
_NARROW = {"fp8": "float8", "mxfp8": "float8", "nvfp4": "float4"}
# Training programs that communicate in a block and keep attention scores in memory.
_BLOCKING = ("Megatron-DeepSpeed", "Megatron-LM", "Megatron-LM PTD")
_TUNED = ("Megatron-Bridge", "Megatron-Core", "MegaScale")
_TENSOR_OVERLAP = ("Megatron-Bridge", "Megatron-Core", "MegaScale", "AsyncTP")


@dataclass(frozen=True)
class TrainingCase:
    """One training row, read.

    Attributes:
        row: The line.
        spec: The model.
        layout: How it was trained.
        cluster: On what.
    """

    row: Row
    spec: ModelSpec
    layout: TrainingLayout
    cluster: Cluster

    @property
    def measured_step_s(self) -> float:
        """The measurement as seconds per step, whatever it was printed as."""
        value, metric = self.row.number("value"), self.row["metric"]
        if metric == "step_time_s":
            return value
        if metric == "tokens_per_s_per_gpu":
            return self.layout.tokens_per_step / (value * self.num_devices)
        return self._printed_flops(metric) / (value * 1e12 * self.num_devices)

    @property
    def num_devices(self) -> int:
        return self.cluster.num_devices

    def _printed_flops(self, metric: str) -> float:
        spec, layout = self.spec, self.layout
        if metric == "model_tflops_per_gpu":
            per_token = flops_per_token(spec, layout.length, "causal")
            return per_token * layout.tokens_per_step
        return megatron_step_flops(
            layout.global_batch, layout.length, spec.num_layers, spec.dim, spec.vocab_size,
            recompute=True,
        )  # fmt: skip

    def predict(self, constants: TrainingConstants | None = None) -> StepTime:
        """Return the predicted parts of the step."""
        return step_time(self.spec, self.layout, self.cluster, constants)


def read_case(row: Row) -> TrainingCase:
    """Read one row.

    Raises:
        DataError: a configuration without parallel sizes, or a word that is not understood.
    """
    spec = parse_architecture(row["arch"])
    return TrainingCase(row, spec, _layout(row), _cluster(row))


def _cluster(row: Row) -> Cluster:
    text = row["hardware"]
    name = text.split(" (")[0]
    if "96GB" in name:
        name = "H100-96GB"
    cluster = Cluster.of(name, row.integer("gpus"))
    per_device = _network(f"{text} {row['notes']}", cluster.devices_per_node)
    if per_device is None:
        return cluster
    scale_out = cluster.scale_out.with_bandwidth(per_device, "the row")
    return Cluster(
        cluster.device, cluster.num_devices, cluster.devices_per_node, cluster.scale_up, scale_out
    )


def _network(text: str, devices_per_node: int) -> float | None:
    """Bytes per second and device, where the row names its network."""
    match = re.search(r"(?:(\d+)x)?(\d+) Gb/s(.{0,24})", text)
    if match is None:
        return None
    count, rate, rest = int(match[1] or 1), float(match[2]), match[3]
    shared = devices_per_node if match[1] or "per node" in rest else 1
    return count * rate * 1e9 / 8 / shared


def _layout(row: Row) -> TrainingLayout:
    if not row["dp"] and not row["gbs"]:
        raise DataError(f"line {row.line}: the row has no parallel sizes")
    tensor, pipeline = row.integer("tp", 1), row.integer("pp", 1)
    context, expert = row.integer("cp", 1), row.integer("ep", 1)
    data = max(1, row.integer("gpus") // (tensor * pipeline * context))
    batch = row.integer("gbs", data)
    framework, sharding = row["framework"], row["sharding"]
    blocking = framework in _BLOCKING
    zero, shard_size = _sharding(sharding)
    return TrainingLayout(
        data=data,
        tensor=tensor,
        pipeline=pipeline,
        chunks=row.integer("vpp", 1),
        context=context,
        expert=expert,
        micro_batch=_micro_batch(row, data, pipeline),
        global_batch=batch,
        length=row.integer("seq_len"),
        zero=zero,
        shard_size=shard_size,
        sequence_parallel=not blocking or "+ SP" in row["recompute"],
        recompute=_recompute(row["recompute"]),
        dtype=_dtype(row["precision"]),
        gradient_bytes=_gradient_bytes(row, zero, pipeline),
        overlap=not blocking,
        tensor_overlap=any(name in framework for name in _TENSOR_OVERLAP),
        attention=_attention(framework),
        frozen=row["task"] == "lora",
        early_stop=zero == 3,
        blocking_engine=framework == "Megatron-DeepSpeed",
        parallel_block="parallel-block" in row["arch"],
    )


def _gradient_bytes(row: Row, zero: ZeroStage, pipeline: int) -> float:
    """Bytes per gradient by program.

    Megatron-DeepSpeed summed in 16 bits until its bfloat16 optimizer, which adds a float32 sum;
    the same release learnt to count embedding and head as layers, so a layer count that divides
    evenly only with both of them tells the release, which no column does.
    """
    framework = row["framework"]
    if framework == "Megatron-DeepSpeed":
        layers = parse_architecture(row["arch"]).num_layers
        counted = (layers + 2) % pipeline == 0 and layers % pipeline != 0
        return 6.0 if counted and pipeline > 1 else 2.0
    return 2.0 if zero == 3 or framework.startswith("InternEvo") else 4.0


def _attention(framework: str) -> AttentionKernel:
    if framework in _BLOCKING:
        return "scores"
    return "tuned" if framework.startswith(_TUNED) else "fused"


def _micro_batch(row: Row, data: int, pipeline: int) -> int:
    """torchtitan prints a rank's batch and cuts it into as many micro batches as stages."""
    batch = row.integer("mbs", 1)
    if row["framework"].startswith("torchtitan") and pipeline > 1:
        return max(1, batch // pipeline)
    return batch


def _sharding(text: str) -> tuple[ZeroStage, int | None]:
    within = re.search(r"within (\d+)", text)
    size = int(within[1]) if within else None
    if text == "hsdp":
        return 3, 8
    if "params kept" in text:
        return 2, size
    if "fsdp" in text or "ZeRO-3" in text:
        return 3, size
    if "ZeRO-2" in text:
        return 2, size
    return (1, size) if "ZeRO-1" in text else (0, size)


def _recompute(text: str) -> Recompute:
    if text.startswith("full"):
        return "full"
    return "selective" if text.startswith("selective") else "none"


def _dtype(text: str) -> str:
    lowered = text.lower()
    for word, dtype in _NARROW.items():
        if word in lowered:
            return dtype
    return "bfloat16"


def compare_training(
    rows: Iterable[Row], constants: TrainingConstants | None = None
) -> tuple[Comparison, ...]:
    """Set predictions beside every row that can be read: speed and peak memory.

    Rows without parallel sizes (a total of hours, a recipe that is not published) are left out.
    """
    constants = constants or training_constants()
    comparisons = []
    for row in rows:
        if not _is_judged(row):
            continue
        case = read_case(row)
        if row["metric"] in THROUGHPUT:
            comparisons.append(compare_speed(case, constants))
        elif row["metric"] in MEMORY:
            comparisons.append(compare_memory(case))
    return tuple(comparisons)


@dataclass(frozen=True)
class GridQuality:
    """How well layouts of one model are ranked.

    Attributes:
        arch: The model.
        num_rows: Measured layouts.
        spearman: Rank correlation of predicted and measured time per token.
        regret: How much slower the predicted best is than the measured best.
    """

    arch: str
    num_rows: int
    spearman: float
    regret: float


def grid_quality(
    rows: Iterable[Row], constants: TrainingConstants | None = None, *, least: int = 8
) -> tuple[GridQuality, ...]:
    """Judge the choice among layouts of every model with at least ``least`` of them."""
    grids: dict[tuple[str, str, str], list[TrainingCase]] = {}
    for row in rows:
        if row["metric"] in THROUGHPUT and row.is_complete and row["framework"]:
            key = (row["arch"], row["hardware"], row["framework"])
            grids.setdefault(key, []).append(read_case(row))
    found = []
    for (arch, _, _), cases in grids.items():
        layouts = {(case.layout.tensor, case.layout.pipeline) for case in cases}
        if len(cases) < least or len(layouts) < 4:
            continue
        tokens = [case.layout.tokens_per_step for case in cases]
        pairs = list(zip(cases, tokens, strict=True))
        predicted = [case.predict(constants).total_s / count for case, count in pairs]
        measured = [case.measured_step_s / count for case, count in pairs]
        quality = spearman(predicted, measured)
        found.append(GridQuality(arch, len(cases), quality, regret(predicted, measured)))
    return tuple(found)


def out_of_memory_verdicts(rows: Iterable[Row]) -> tuple[tuple[str, bool, bool], ...]:
    """Return (row, predicted to fit, did fit) where a row tells that something fitted or not."""
    verdicts = []
    for row in rows:
        if row["metric"] not in ("oom", "peak_memory_gb", "peak_memory_gib"):
            continue
        case = read_case(row)
        needed = training_ledger(case.spec, case.layout).total
        fits = needed <= case.cluster.device.memory_bytes
        verdicts.append((row.id, fits, row["metric"] != "oom"))
    return tuple(verdicts)


def _is_judged(row: Row) -> bool:
    return row["metric"] in (*THROUGHPUT, *MEMORY) and bool(row["dp"] or row["gbs"])


def compare_speed(case: TrainingCase, constants: TrainingConstants) -> Comparison:
    """Set the predicted rate beside the measured one, in tokens per second and device."""
    predicted = case.predict(constants)
    factor = interval_factor(case.spec, constants)
    tokens = case.layout.tokens_per_step / case.num_devices
    rate = Figure.within(tokens / predicted.total_s, factor, "tok/s/device", "fit")
    return Comparison(
        id=case.row.id,
        source=case.row.source,
        quantity="training throughput",
        predicted=rate,
        measured=tokens / case.measured_step_s,
        complete=case.row.is_complete,
        explanation=_shares(predicted),
    )


def _shares(step: StepTime) -> str:
    """Name what takes at least a twentieth of the step."""
    parts = {
        name.removesuffix("_s"): getattr(step, name) / step.total_s
        for name in step.__dataclass_fields__
        if name != "recompute_s"
    }
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts.items() if share > 0.05)


def compare_memory(case: TrainingCase, constants: MemoryConstants | None = None) -> Comparison:
    """Set the predicted memory beside what the row measured: a peak, or one part of it."""
    constants = constants or memory_constants()
    metric, unit = case.row["metric"], MEMORY[case.row["metric"]]
    if metric == "activation_memory_gib":
        needed = rank_ledger(case.spec, case.layout, 0, constants).activations
    elif metric == "params_grads_optimizer_gib":
        needed = rank_ledger(case.spec, case.layout, 0, constants).states
    else:
        needed = training_ledger(case.spec, case.layout, constants).total
    return Comparison(
        id=case.row.id,
        source=case.row.source,
        quantity="training memory",
        predicted=Figure.within(needed / unit, constants.interval, "GB", "fit"),
        measured=case.row.number("value"),
        complete=case.row.is_complete,
        explanation=metric,
    )
