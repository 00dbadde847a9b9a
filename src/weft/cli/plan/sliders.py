"""The tables behind the sliders of ``weft plan train --html`` and ``weft plan infer --html``."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from weft.cli.plan.train import PARTS
from weft.core.errors import WeftError
from weft.plan.accounting import flops_per_token
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.deployment import Deployment, Storage
from weft.plan.inference.load import Traffic, estimate_closed_loop
from weft.plan.inference.step import StepModel
from weft.plan.layout import TrainingLayout
from weft.plan.ledger import training_ledger
from weft.plan.search.rules import rule
from weft.plan.step_time import step_time
from weft.report.sliders import Axis, Column, Derived, Input, Limit, Sliders, sliders_section
from weft.spec import ModelSpec

_POWERS = tuple(2**power for power in range(11))
_RECOMPUTES = ("none", "full")
_MEMORY = ("weights", "gradients", "optimizer", "activations", "logits", "communication", "reserve")
_KINDS = ("bfloat16", "float8")
_HOUR = 1.0 / 3600.0


def training_sliders(
    spec: ModelSpec, layout: TrainingLayout, cluster: Cluster, num_tokens: float, price: float
) -> str:
    """Return the section in which layout and batch of a training run are moved."""
    return sliders_section(
        "Move the layout", training_table(spec, layout, cluster, num_tokens, price)
    )


def training_table(
    spec: ModelSpec, layout: TrainingLayout, cluster: Cluster, num_tokens: float, price: float
) -> Sliders:
    """Compute every combination of the training sliders."""
    axes = _training_axes(spec, layout, cluster)
    points = product(*(axis.values for axis in axes))
    columns = (
        Column("step time", "s"), Column("peak memory", "B"), Column("MFU", "share"),
        Column("tokens per step", ""),
        *(Column(name, "s", "time of a step") for name in PARTS),
        *(Column(name, "B", "memory of the fullest device") for name in _MEMORY),
    )  # fmt: skip
    devices = float(cluster.num_devices)
    return Sliders(
        axes=axes,
        columns=columns,
        rows=tuple(_training_row(spec, layout, cluster, point) for point in points),
        inputs=(Input("tokens", num_tokens), Input("price per device hour", price)),
        derived=(
            Derived("duration", "s", ("tokens", "step time"), ("tokens per step",)),
            Derived("device hours", "h", ("duration",), factor=devices * _HOUR),
            Derived("cost", "", ("device hours", "price per device hour")),
        ),
        limit=Limit("peak memory", float(cluster.device.memory_bytes), "memory of a device"),
    )


def _training_axes(spec: ModelSpec, layout: TrainingLayout, cluster: Cluster) -> tuple[Axis, ...]:
    sizes = [size for size in _POWERS if cluster.num_devices % size == 0]
    tensors = [size for size in sizes if size <= cluster.devices_per_node]
    pipelines = [size for size in sizes if size <= min(64, spec.num_layers)]
    batches = {max(1, layout.global_batch // 2), layout.global_batch, 2 * layout.global_batch}
    return (
        _axis("tensor", tensors, layout.tensor),
        _axis("pipeline", pipelines, layout.pipeline),
        _axis("stages per rank", (1, 2, 4), layout.chunks),
        _axis("ZeRO", (1, 2, 3), layout.zero),
        _axis("micro batch", (1, 2, 4), layout.micro_batch),
        _axis("global batch", batches, layout.global_batch),
        Axis("recompute", _RECOMPUTES, int(layout.recompute == "full")),
    )


def _axis(name: str, values: object, start: int) -> Axis:
    found = sorted({*values, start})  # type: ignore[misc]
    return Axis(name, tuple(found), found.index(start))


def training_layout(layout: TrainingLayout, cluster: Cluster, point: tuple) -> TrainingLayout | str:
    """Return the layout of slider positions, or why there is none."""
    tensor, pipeline, chunks, zero, micro, batch, recompute = point
    cut = tensor * pipeline * layout.context
    if cluster.num_devices % cut:
        return f"tp x pp x cp = {cut} does not divide {cluster.num_devices} devices"
    return layout.but(
        tensor=tensor,
        pipeline=pipeline,
        chunks=chunks,
        data=cluster.num_devices // cut,
        zero=zero,
        micro_batch=micro,
        global_batch=batch,
        recompute=recompute,
    )


def _training_row(
    spec: ModelSpec, layout: TrainingLayout, cluster: Cluster, point: tuple
) -> tuple[float, ...] | str:
    chosen = training_layout(layout, cluster, point)
    if isinstance(chosen, str):
        return chosen
    reason = rule(spec, chosen, cluster.devices_per_node)
    if reason:
        return reason
    step, ledger = step_time(spec, chosen, cluster), training_ledger(spec, chosen)
    flops = flops_per_token(spec, chosen.length, "causal") * chosen.tokens_per_step
    rate = flops / step.total_s / cluster.num_devices
    return (
        step.total_s,
        ledger.total,
        rate / cluster.device.matmul_flops["bfloat16"],
        chosen.tokens_per_step,
        *(getattr(step, part) for part in PARTS.values()),
        *ledger.parts().values(),
    )


def serving_sliders(model: StepModel, traffic: Traffic, price: float) -> str:
    """Return the section in which deployment and load of a server are moved."""
    return sliders_section("Move deployment and load", serving_table(model, traffic, price))


def serving_table(model: StepModel, traffic: Traffic, price: float) -> Sliders:
    """Compute every combination of the serving sliders."""
    devices = model.deployment.cluster.num_devices
    sizes = [size for size in _POWERS if devices % size == 0]
    prompts = sorted({max(1, int(traffic.num_prompt_tokens * s)) for s in (0.25, 0.5, 1, 2, 4)})
    outputs = sorted({max(1, int(traffic.num_output_tokens * s)) for s in (0.5, 1, 2)})
    storage = model.deployment.storage
    kinds = tuple(dict.fromkeys((*_KINDS, storage.ffn)))
    axes = (
        _axis("tensor", sizes, model.deployment.tensor),
        Axis("weights", kinds, kinds.index(storage.ffn)),
        _axis("clients per replica", _POWERS[:10], 32),
        _axis("prompt tokens", prompts, traffic.num_prompt_tokens),
        _axis("output tokens", outputs, traffic.num_output_tokens),
    )
    columns = (
        Column("TTFT", "s"), Column("TPOT", "s"), Column("output tokens per second", ""),
        Column("cache capacity", "tokens"), Column("weights per device", "B"),
    )  # fmt: skip
    return Sliders(
        axes=axes,
        columns=columns,
        rows=tuple(_serving_row(model, traffic, p) for p in product(*(a.values for a in axes))),
        inputs=(Input("price per device hour", price),),
        derived=(
            Derived("tokens per second and device", "", ("output tokens per second",),
                    factor=1.0 / devices),
            Derived("cost per million output tokens", "", ("price per device hour",),
                    ("output tokens per second",), factor=devices * _HOUR * 1e6),
        ),
        limit=Limit(
            "weights per device", float(model.deployment.cluster.device.memory_bytes),
            "memory of a device without cache",
        ),
    )  # fmt: skip


def serving_deployment(model: StepModel, tensor: int, kind: str) -> StepModel:
    """Return one replica of the sliders' positions."""
    base = model.deployment
    storage = Storage(ffn=kind, mixer=kind, kv=base.storage.kv)
    cluster = base.cluster.with_devices(tensor)
    deployment = Deployment(base.spec, cluster, tensor=tensor, storage=storage)
    return replace(model, deployment=deployment)


def _serving_row(model: StepModel, traffic: Traffic, point: tuple) -> tuple[float, ...] | str:
    tensor, kind, clients, prompt, output = point
    replicas = model.deployment.cluster.num_devices // tensor
    replica = serving_deployment(model, tensor, kind)
    load = replace(traffic, num_prompt_tokens=prompt, num_output_tokens=output, num_cached_tokens=0)
    try:
        found = estimate_closed_loop(replica, load, num_clients=clients)
    except WeftError as error:
        return error.message
    return (
        found.ttft_s,
        found.tpot_s,
        found.output_tokens_per_s * replicas,
        replica.deployment.kv_capacity_tokens() * replicas,
        replica.deployment.weight_bytes,
    )
