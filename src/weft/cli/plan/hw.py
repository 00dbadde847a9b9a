"""``weft plan hw``: the catalogue of devices and links, with sources."""

from __future__ import annotations

from dataclasses import replace

from weft.cli.plan.inputs import cluster_of
from weft.cli.plan.options import Output
from weft.cli.plan.output import emit
from weft.plan.answer import Answer, Item, Listing, listing, scaled
from weft.plan.hardware.catalogue import devices
from weft.plan.hardware.links import links
from weft.spec import HardwareSpec

_DTYPES = ("float32", "bfloat16", "float8", "float4")


def hw(
    name: str | None = None,
    *,
    output: Output = Output(),  # noqa: B008
) -> None:
    """Show the catalogue of devices, or everything about one, with sources.

    Parameters
    ----------
    name
        A device; none lists all devices and links.
    """
    if name is None:
        emit(Answer("devices and links", listings=(_devices(), _links())), output)
        return
    device = cluster_of(name).device
    shown = output if output.json or output.explain else replace(output, explain=True)
    emit(Answer(device.name, items=_items(device)), shown)


def _items(device: HardwareSpec) -> tuple[Item, ...]:
    def item(label: str, value: float | str, unit: str, field: str) -> Item:
        return Item(label, value, unit, device.grade, device.sources.get(field, ""))

    peaks = [
        item(f"{dtype} peak, dense", rate, "FLOP/s", "matmul_flops")
        for dtype, rate in device.matmul_flops.items()
    ]
    shares = [
        item(f"{dtype} share reached", share, "share", "matmul_share")
        for dtype, share in device.matmul_share.items()
    ]
    return (
        *peaks,
        *shares,
        item("attention share reached", device.attention_share, "share", "attention_share"),
        item("memory", device.memory_bytes, "B", "memory_bytes"),
        item("memory bandwidth", device.memory_bandwidth, "B/s", "memory_bandwidth"),
        item("bandwidth share reached", device.memory_share, "share", "memory_share"),
        item("kernel start", device.kernel_start_s, "s", "kernel_start_s"),
        item("link inside", device.scale_up or "none", "", "scale_up"),
        item("devices inside", device.scale_up_size, "", "scale_up_size"),
        item("link outside", device.scale_out or "none", "", "scale_out"),
        item("design power", device.power_w, "W", "power_w"),
    )


def _devices() -> Listing:
    rows = [
        (
            device.name,
            *(_peak(device, dtype) for dtype in _DTYPES),
            f"{device.memory_bytes / 1e9:.0f} GB",
            scaled(device.memory_bandwidth, "B/s"),
            device.scale_up,
            device.scale_up_size,
            device.scale_out,
        )
        for device in devices().values()
    ]
    columns = ("device", *_DTYPES, "memory", "bandwidth", "inside", "size", "outside")
    return listing("devices (dense peaks)", columns, rows)


def _peak(device: HardwareSpec, dtype: str) -> str:
    rate = device.matmul_flops.get(dtype)
    return "" if rate is None else f"{rate / 1e12:,.0f} T"


def _links() -> Listing:
    rows = [
        (one.name, scaled(one.bandwidth, "B/s"), f"{100 * one.share:.0f} %",
         f"{one.start_s * 1e6:.1f} us", one.source)
        for one in links().values()
    ]  # fmt: skip
    return listing(
        "links, one way per device", ("link", "rate", "reached", "start", "source"), rows
    )
