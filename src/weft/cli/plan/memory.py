"""``weft plan memory``: what one device holds in training, and what would make it fit."""

from __future__ import annotations

from collections.abc import Callable

from weft.cli.plan.inputs import cluster_of, layout_of, model_of
from weft.cli.plan.options import LayoutOptions, Output
from weft.cli.plan.output import emit
from weft.plan.answer import Answer, Item, Parts, listing
from weft.plan.layout import TrainingLayout
from weft.plan.ledger import Fit, fit_memory, rank_ledger, training_ledger
from weft.plan.memory_constants import memory_constants
from weft.spec import ModelSpec

_FORMULAS = {
    "weights": "2 B each, cut by tp, pp, ep; by ZeRO-3 over replicas",
    "gradients": "4 B each (2 B under ZeRO-3), from ZeRO-2 on over replicas",
    "optimizer": "12 B each: master copy and two moments, from ZeRO-1 on over replicas",
    "activations": "what backward reads per layer x micro batches in flight",
    "logits": "12 B x tokens x vocabulary / tp on the last stage",
    "communication": "staging buffers of each parallel axis",
    "reserve": "runtime and what the allocator cannot use",
}
_MOST_DOUBLINGS = 20


def memory(
    model: str,
    *,
    hw: str = "H100x8",
    layout: LayoutOptions = LayoutOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Say what training takes of every device's memory, and whether it fits.

    Parameters
    ----------
    model
        A name from `weft model list`, a folder or a config.json.
    hw
        Devices, such as H100x64.
    """
    name, spec = model_of(model)
    cluster = cluster_of(hw)
    cut = layout_of(layout, cluster.num_devices)
    fit = fit_memory(spec, cut, cluster.device.memory_bytes)
    emit(answer(f"{name} on {hw}", spec, cut, fit), output)
    fit.require()


def answer(title: str, spec: ModelSpec, layout: TrainingLayout, fit: Fit) -> Answer:
    """Return the ledger of a layout as an answer."""
    available = fit.available_bytes
    return Answer(
        title=title,
        facts=(describe(layout),),
        items=(*_items(fit), *_largest(spec, layout, available)),
        parts=(Parts(f"pipeline rank {fit.ledger.rank}, the fullest", "B", fit.ledger.parts()),),
        listings=_ranks(spec, layout),
        notes=() if fit.fits or not fit.change else (f"cheapest change that fits: {fit.change}",),
        data={"fits": fit.fits, "change": fit.change},
    )


def describe(layout: TrainingLayout) -> str:
    """Return a layout in one line."""
    axes = (("tp", layout.tensor), ("pp", layout.pipeline), ("vp", layout.chunks),
            ("cp", layout.context), ("ep", layout.expert), ("dp", layout.data))  # fmt: skip
    cuts = " ".join(f"{axis}{size}" for axis, size in axes if size > 1) or "one device"
    return (
        f"{cuts}  zero{layout.zero} gbs{layout.global_batch} mbs{layout.micro_batch} "
        f"seq{layout.length} {layout.dtype} recompute {layout.recomputed}"
    )


def _items(fit: Fit) -> tuple[Item, ...]:
    total, parts = fit.ledger.total, fit.ledger.parts()
    peak = Item(
        "peak", total, "B", "fit", "sum of the parts below", total / memory_constants().interval,
        total * memory_constants().interval,
    )  # fmt: skip
    room = fit.available_bytes - total
    return (
        peak,
        Item("available", fit.available_bytes, "B", formula="the device's memory"),
        Item("left" if room >= 0 else "missing", abs(room), "B", "fit", "available - peak"),
        *(Item(name, value, "B", "fit", _FORMULAS[name]) for name, value in parts.items()),
    )


def _largest(spec: ModelSpec, layout: TrainingLayout, available: float) -> tuple[Item, ...]:
    """Return the largest micro batch and length that fit, by doubling."""
    micro = _double(lambda n: layout.but(micro_batch=n), spec, available, 1)
    length = _double(lambda n: layout.but(length=n * layout.context), spec, available, 256)
    return (
        Item("largest micro batch", micro, "sequences", "fit", "doubled while it fits"),
        Item("longest sequence", length * layout.context, "tokens", "fit", "doubled from 256"),
    )


def _double(
    make: Callable[[int], TrainingLayout], spec: ModelSpec, available: float, first: int
) -> int:
    best, size = 0, first
    for _ in range(_MOST_DOUBLINGS):
        if training_ledger(spec, make(size)).total > available:
            break
        best, size = size, size * 2
    return best


def _ranks(spec: ModelSpec, layout: TrainingLayout) -> tuple:
    if layout.pipeline == 1:
        return ()
    rows = []
    for rank in range(layout.pipeline):
        ledger = rank_ledger(spec, layout, rank)
        cells = [f"{size / 2**30:.1f}" for size in ledger.parts().values()]
        rows.append((rank, f"{ledger.total / 2**30:.1f}", *cells))
    columns = ("rank", "total", *_FORMULAS)
    return (listing("GiB by pipeline rank", columns, rows),)
