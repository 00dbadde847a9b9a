"""``weft plan train``: step time, utilisation, memory, days and money of a training run."""

from __future__ import annotations

from weft.cli.plan.inputs import calibration_of, cluster_of, count_of, layout_of, model_of
from weft.cli.plan.memory import describe
from weft.cli.plan.options import LayoutOptions, Output
from weft.cli.plan.output import emit
from weft.plan.answer import Answer, Item, Listing, Parts, listing, seconds
from weft.plan.hardware.cluster import Cluster
from weft.plan.layout import TrainingLayout
from weft.plan.run_estimate import RunEstimate, estimate_run
from weft.plan.search.training import Candidate, neighbours
from weft.spec import ModelSpec

PARTS = {
    "compute": "compute_s", "bubble": "bubble_s", "tensor parallel": "tensor_s",
    "context parallel": "context_s", "expert parallel": "expert_s", "data parallel": "data_s",
    "pipeline sends": "pipeline_s", "optimizer": "optimizer_s", "host": "host_s",
}  # fmt: skip
_NUM_NEXT = 4


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
        Devices, such as H100x512; this-machine after `weft plan calibrate`.
    tokens
        Tokens to train on, such as 2T.
    price
        Of one device and hour, in any currency.
    """
    name, spec = model_of(model)
    cluster, num_tokens = cluster_of(hw), count_of(tokens)
    calibration = calibration_of(hw)
    if calibration is not None:
        from weft.cli.plan.machine import train_here

        emit(train_here(name, spec, layout, num_tokens, calibration), output)
        return
    cut = layout_of(layout, cluster.num_devices)
    run = estimate_run(spec, cut, cluster, num_tokens=num_tokens, price_per_hour=price)
    run.memory.require()
    sections: tuple[str, ...] = ()
    if output.html is not None:
        from weft.cli.plan.sliders import training_sliders

        sections = (training_sliders(spec, cut, cluster, num_tokens, price),)
    emit(answer(f"{name}  {hw}", spec, cut, cluster, run, num_tokens), output, *sections)


def answer(
    title: str,
    spec: ModelSpec,
    layout: TrainingLayout,
    cluster: Cluster,
    run: RunEstimate,
    num_tokens: float,
) -> Answer:
    """Return everything about one training run."""
    ledger = run.memory.ledger
    return Answer(
        title=title,
        facts=(describe(layout),),
        items=(
            *_speed(run),
            *_bill(run, num_tokens),
            Item("peak memory", ledger.total, "B", "fit", "weft plan memory shows the parts"),
        ),
        parts=(
            Parts("time of a step", "s", {n: getattr(run.step, p) for n, p in PARTS.items()}),
            Parts("memory of the fullest device", "B", ledger.parts()),
        ),
        listings=_next_best(spec, layout, cluster, run.step.total_s),
    )


def _speed(run: RunEstimate) -> tuple[Item, ...]:
    causal = "rate x causal FLOPs per token / dense bfloat16 peak"
    return (
        Item.of("step time", run.step_s, "sum of the parts below"),
        Item.of("rate per device", run.tokens_per_s_per_device, "gbs x seq / step time / devices"),
        Item("MFU (causal)", run.mfu, "share", "fit", causal),
        Item("MFU (PaLM)", run.mfu_palm, "share", "fit", "all pairs counted (arXiv:2204.02311)"),
        Item("HFU", run.hfu, "share", "fit", "with recomputed FLOPs (arXiv:2205.05198)"),
    )


def _bill(run: RunEstimate, num_tokens: float) -> tuple[Item, ...]:
    if run.days is None or run.bill is None:
        return ()
    duration = f"{num_tokens:.3g} tokens / (gbs x seq) x step time"
    return (
        Item("duration", run.days * 86_400.0, "s", "fit", duration),
        Item("device hours", run.bill.device_hours, "h", "fit", "devices x duration"),
        Item("cost", run.bill.money, "", "fit", "device hours x price"),
        Item("energy", run.bill.energy_kwh, "kWh", "fit", "device hours x 0.8 x design power"),
    )


def _next_best(
    spec: ModelSpec, layout: TrainingLayout, cluster: Cluster, step_s: float
) -> tuple[Listing, ...]:
    rows = [_row(one, step_s) for one in neighbours(spec, layout, cluster)[:_NUM_NEXT]]
    return (listing("single changes", ("change", "step", "against this", "memory"), rows),)


def _row(one: Candidate, step_s: float) -> tuple[str, ...]:
    memory = f"{one.memory_bytes / 2**30:.1f} GiB"
    if not one.fits:
        return (one.change, "", "does not fit", memory)
    return (one.change, seconds(one.step_s), f"{100 * (one.step_s / step_s - 1):+.1f} %", memory)
