"""``weft plan train``: step time, utilisation, memory, days and money of a training run."""

from __future__ import annotations

from weft.cli.plan.inputs import cluster_of, count_of, layout_of, model_of
from weft.cli.plan.memory import describe
from weft.cli.plan.options import LayoutOptions, Output
from weft.cli.plan.output import emit
from weft.plan.accounting import distinct_layers, flops_per_token
from weft.plan.answer import Answer, Item, Listing, Parts, listing, seconds
from weft.plan.economy import run_bill
from weft.plan.figure import Figure
from weft.plan.hardware.cluster import Cluster
from weft.plan.layout import TrainingLayout
from weft.plan.ledger import fit_memory
from weft.plan.search.training import Candidate, neighbours
from weft.plan.step_time import StepTime, step_time
from weft.plan.training_constants import training_constants
from weft.spec import ModelSpec, MoESpec

_SHARES = {
    "compute": "compute_s", "bubble": "bubble_s", "tensor parallel": "tensor_s",
    "context parallel": "context_s", "expert parallel": "expert_s", "data parallel": "data_s",
    "pipeline sends": "pipeline_s", "optimizer": "optimizer_s", "host": "host_s",
}  # fmt: skip
_NUM_NEXT = 3


def train(
    model: str,
    *,
    hw: str = "H100x8",
    tokens: str = "1T",
    price: float = 2.0,
    layout: LayoutOptions = LayoutOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Predict step time, utilisation, memory, days, money and energy of a training run.

    Parameters
    ----------
    model
        A name from `weft model list`, a folder or a config.json.
    hw
        Devices, such as H100x512.
    tokens
        Tokens to train on, such as 2T.
    price
        Of one device and hour, in any currency.
    """
    name, spec = model_of(model)
    cluster = cluster_of(hw)
    if cluster.device.grade == "measured" and cluster.num_devices == 1:
        from weft.cli.plan.machine import train_here

        emit(train_here(name, spec, layout, count_of(tokens)), output)
        return
    cut = layout_of(layout, cluster.num_devices)
    fit_memory(spec, cut, cluster.device.memory_bytes).require()
    answer = training_answer(f"{name}  {hw}", spec, cut, cluster, count_of(tokens), price)
    sections: tuple[str, ...] = ()
    if output.html is not None:
        from weft.report.training_sliders import training_sliders

        sections = (training_sliders(spec, cut, cluster, count_of(tokens), price),)
    emit(answer, output, *sections)


def training_answer(
    title: str,
    spec: ModelSpec,
    layout: TrainingLayout,
    cluster: Cluster,
    num_tokens: float,
    price: float,
) -> Answer:
    """Return everything about one training run."""
    step = step_time(spec, layout, cluster)
    ledger = fit_memory(spec, layout, cluster.device.memory_bytes).ledger
    shares = {name: getattr(step, part) for name, part in _SHARES.items()}
    return Answer(
        title=title,
        facts=(describe(layout),),
        items=(
            *_speed(spec, layout, cluster, step),
            *_bill(layout, cluster, step, num_tokens, price),
            Item("peak memory", ledger.total, "B", "fit", "weft plan memory shows the parts"),
        ),
        parts=(Parts("time of a step", "s", shares), Parts("memory", "B", ledger.parts())),
        listings=_next_best(spec, layout, cluster, step),
    )


def _speed(
    spec: ModelSpec, layout: TrainingLayout, cluster: Cluster, step: StepTime
) -> tuple[Item, ...]:
    constants = training_constants()
    mixture = any(isinstance(layer.ffn, MoESpec) for layer in distinct_layers(spec))
    factor = constants.interval_experts if mixture else constants.interval
    rate = layout.tokens_per_step / step.total_s / cluster.num_devices
    peak = cluster.device.matmul_flops.get("bfloat16", 0.0)
    causal = rate * flops_per_token(spec, layout.length, "causal")
    palm = rate * flops_per_token(spec, layout.length, "palm")
    repeated = step.recompute_s / step.compute_s if step.compute_s else 0.0
    hardware = causal / (1.0 - repeated) if repeated < 1.0 else causal
    within = Figure.within
    return (
        Item.of("step time", within(step.total_s, factor, "s", "fit"), "sum of the parts below"),
        Item.of(
            "tokens per second and device",
            within(rate, factor, "tok/s", "fit"),
            "gbs x seq / step time / devices",
        ),
        Item.of(
            "model FLOP/s per device",
            within(causal, factor, "FLOP/s", "fit"),
            "rate x FLOPs per token, causal",
        ),
        Item("MFU (causal)", causal / peak, "share", "fit", "causal FLOPs / dense bfloat16 peak"),
        Item("MFU (PaLM)", palm / peak, "share", "fit", "all pairs counted (arXiv:2204.02311)"),
        Item("HFU", hardware / peak, "share", "fit", "with recomputed FLOPs (arXiv:2205.05198)"),
    )


def _bill(
    layout: TrainingLayout, cluster: Cluster, step: StepTime, num_tokens: float, price: float
) -> tuple[Item, ...]:
    duration_s = num_tokens / layout.tokens_per_step * step.total_s
    bill = run_bill(
        cluster.num_devices, duration_s, price_per_hour=price, power_w=cluster.device.power_w
    )
    return (
        Item("duration", duration_s, "s", "fit", f"{num_tokens:.3g} tokens / rate"),
        Item("device hours", bill.device_hours, "h", "fit", "devices x duration"),
        Item("cost", bill.money, "", "fit", f"device hours x {price:g}"),
        Item("energy", bill.energy_kwh, "kWh", "fit", "device hours x 0.8 TDP"),
    )


def _next_best(
    spec: ModelSpec, layout: TrainingLayout, cluster: Cluster, step: StepTime
) -> tuple[Listing, ...]:
    found = neighbours(spec, layout, cluster)
    rows = [_row(one, step.total_s) for one in found[:_NUM_NEXT]]
    return (listing("single changes", ("change", "step", "against this", "memory"), rows),)


def _row(one: Candidate, step_s: float) -> tuple[str, ...]:
    memory = f"{one.memory_bytes / 2**30:.1f} GiB"
    if not one.fits:
        return (one.change, "", "does not fit", memory)
    return (one.change, seconds(one.step_s), f"{100 * (one.step_s / step_s - 1):+.1f} %", memory)
