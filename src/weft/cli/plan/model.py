"""``weft plan model``: parameters, FLOPs, cache, and the roofline of every kernel."""

from __future__ import annotations

from dataclasses import asdict

from weft.cli.plan.inputs import cluster_of, model_of
from weft.cli.plan.options import Output
from weft.cli.plan.output import emit
from weft.plan.accounting import Convention, flops_per_token, model_ops
from weft.plan.answer import Answer, Item, Listing, Parts, listing, scaled, seconds
from weft.plan.hardware.cluster import Cluster
from weft.plan.kernels import op_cost, peak_flops
from weft.plan.memory import kv_bytes_per_token, state_bytes_per_sequence
from weft.plan.parameters import count_parameters
from weft.plan.utilization import ridge_intensity
from weft.plan.work import Dtypes, Work
from weft.spec import ModelSpec

_FLOPS: tuple[tuple[Convention, str], ...] = (
    ("palm", "6 x multiplied weights + every (query, key) pair (arXiv:2204.02311)"),
    ("causal", "6 x multiplied weights + the half of the pairs a causal mask keeps"),
    ("hardware", "causal + one repeated forward pass of the layers (arXiv:2205.05198)"),
)


def model(
    model: str,
    *,
    hw: str = "H100",
    seq: int = 4096,
    batch: int = 1,
    phase: str = "prefill",
    ops: bool = False,
    output: Output = Output(),  # noqa: B008
) -> None:
    """Count parameters, FLOPs and cache of a model, and what its kernels take.

    Parameters
    ----------
    model
        A name from `weft model list`, a folder or a config.json.
    hw
        The device of the kernel table.
    seq
        Tokens of a sequence.
    batch
        Sequences of the kernel table.
    phase
        The pass of the kernel table: prefill, decode or train.
    ops
        Print the kernel table: FLOPs, bytes, intensity, time, what bounds it.
    """
    name, spec = model_of(model)
    cluster = cluster_of(hw)
    tables = (_kernels(spec, cluster, _work(phase, batch, seq)),) if ops else ()
    answer = Answer(
        title=f"{name}: {spec.num_layers} layers, width {spec.dim:,}",
        items=(*_counts(spec, seq), *_cache(spec)),
        parts=(Parts("parameters", "", _parts(spec)),),
        listings=tables,
        notes=_ridge(cluster) if ops else (),
    )
    emit(answer, output)


def _counts(spec: ModelSpec, seq: int) -> tuple[Item, ...]:
    count = count_parameters(spec)
    flops = (
        Item(
            f"FLOPs per token ({name})",
            flops_per_token(spec, seq, name, recomputed=float(name == "hardware")),
            "FLOP",
            formula=f"training, {seq:,} tokens: {formula}",
        )
        for name, formula in _FLOPS
    )
    return (
        Item("parameters", count.total, formula="sum over modules; tied weights once"),
        Item("active per token", count.active, formula="without experts a token skips"),
        *flops,
    )


def _cache(spec: ModelSpec) -> tuple[Item, ...]:
    per_token = kv_bytes_per_token(spec, dtype="bfloat16")
    states = state_bytes_per_sequence(spec, dtype="bfloat16")
    return (
        Item("cache per token", per_token, "B", formula="2 bytes x what each layer keeps"),
        Item("state per sequence", states, "B", formula="recurrent layers, any length"),
    )


def _parts(spec: ModelSpec) -> dict[str, float]:
    return {name: float(value) for name, value in asdict(count_parameters(spec)).items()
            if name not in ("total", "active", "idle")}  # fmt: skip


def _work(phase: str, batch: int, seq: int) -> Work:
    if phase == "decode":
        return Work.decode(batch, seq)
    return Work.train(batch, seq) if phase == "train" else Work.prefill(batch, seq)


def _kernels(spec: ModelSpec, cluster: Cluster, work: Work) -> Listing:
    device = cluster.device
    dtypes = Dtypes() if "bfloat16" in device.matmul_flops else Dtypes(compute="float32")
    rows = []
    for op in model_ops(spec, work, dtypes=dtypes):
        cost = op_cost(op, device)
        intensity = op.flops / op.memory_bytes if op.memory_bytes else 0.0
        rows.append(
            (op.name, op.count, scaled(op.total_flops, "FLOP"), scaled(op.total_bytes, "B"),
             f"{intensity:.1f}", seconds(cost.seconds), cost.bound)
        )  # fmt: skip
    columns = ("kernel", "count", "FLOPs", "bytes", "FLOP/B", "time", "bound")
    return listing(f"kernels on one {device.name}", columns, rows)


def _ridge(cluster: Cluster) -> tuple[str, ...]:
    device = cluster.device
    dtype = "bfloat16" if "bfloat16" in device.matmul_flops else "float32"
    ridge = ridge_intensity(device.matmul_flops[dtype], device.memory_bandwidth)
    reached = peak_flops(device, dtype)
    return (
        f"{device.name} is bound by compute above {ridge:.0f} FLOP/B ({dtype}); large products "
        f"reach {scaled(reached, 'FLOP/s')}",
    )
