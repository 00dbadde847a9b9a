"""``weft plan comm``: how long a collective takes, by algorithm and by size."""

from __future__ import annotations

from typing import get_args

from weft.cli.plan.inputs import cluster_of, count_of
from weft.cli.plan.options import Output
from weft.cli.plan.output import emit
from weft.core.errors import ConfigError, did_you_mean
from weft.plan.answer import Answer, Curve, Item, Plot, listing, seconds
from weft.plan.collectives import ALGORITHMS, Kind, algorithm_seconds, bus_factor, choose
from weft.plan.hardware.cluster import Cluster

_SIZES = tuple(4.0**power for power in range(5, 17))


def comm(
    *,
    op: str = "all_reduce",
    hw: str = "H100x64",
    n: int | None = None,
    stride: int = 1,
    bytes: str = "1G",
    output: Output = Output(),  # noqa: B008
) -> None:
    """Predict the time and bus bandwidth of a collective.

    Parameters
    ----------
    op
        all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, reduce.
    hw
        Devices, such as H100x64.
    n
        Ranks that take part; by default all.
    stride
        Distance between neighbouring ranks of the group.
    bytes
        Of the buffer, such as 512M.
    """
    if op not in get_args(Kind):
        raise ConfigError(f"no collective is called {op!r}", fix=did_you_mean(op, get_args(Kind)))
    kind: Kind = op  # type: ignore[assignment]
    cluster = cluster_of(hw)
    size, num_bytes = n or cluster.num_devices, count_of(bytes)
    emit(_answer(kind, cluster, size, stride, num_bytes), output)


def _answer(kind: Kind, cluster: Cluster, size: int, stride: int, num_bytes: float) -> Answer:
    choice = choose(kind, num_bytes, cluster, size, stride=stride)
    bus = bus_factor(kind, size) * num_bytes / choice.seconds if choice.seconds else 0.0
    span = cluster.span(size, stride)
    wires = (("inside a node", cluster.scale_up), ("between nodes", cluster.scale_out))
    rows = [
        (algorithm, place, seconds(algorithm_seconds(kind, algorithm, size, num_bytes, wire)))
        for algorithm in ALGORITHMS[kind]
        for place, wire in wires
    ]
    times = tuple(choose(kind, one, cluster, size, stride=stride).seconds for one in _SIZES)
    rates = tuple(
        bus_factor(kind, size) * one / time / 1e9 for one, time in zip(_SIZES, times, strict=True)
    )
    facts = f"{size} ranks: {span.inside} per node over {cluster.scale_up.name}, {span.across} "
    return Answer(
        title=f"{kind} of {num_bytes:.3g} B on {cluster.device.name}",
        facts=(facts + f"nodes over {cluster.scale_out.name}",),
        items=(
            Item("time", choice.seconds, "s", "fit", f"{choice.algorithm}: start + bytes / rate"),
            Item("bus bandwidth", bus, "B/s", "fit", "bytes x bus factor / time (nccl-tests)"),
            Item("bus factor", bus_factor(kind, size), "", formula="2(n-1)/n of an all-reduce"),
            Item("sent inside the node", choice.inner_bytes, "B", formula="per device"),
            Item("sent between nodes", choice.outer_bytes, "B", formula="per device"),
        ),
        listings=(
            listing("all ranks on one kind of link", ("algorithm", "link", "time"), rows),
        ),
        plots=(Plot("bus bandwidth by size", "log2 of bytes", "GB/s",
                    (Curve("", tuple(2.0 * p for p in range(5, 17)), rates),)),),
    )  # fmt: skip
