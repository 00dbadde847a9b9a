"""How long collectives take: latency and bandwidth of each algorithm, the best one chosen.

``S`` is the buffer as collective benchmarks count it: what a rank holds before an all-reduce,
reduce-scatter or all-to-all, and after an all-gather or broadcast. Costs follow Thakur et al. 2005
(ring, recursive halving and doubling), Sanders et al. 2009 (two trees) and the two-level schedules
of collective libraries; a link is two-regime (``weft.plan.hardware.links``). Traffic of every
algorithm is proven by running it: ``weft.plan.collective_traffic``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from weft.core.errors import ConfigError, did_you_mean
from weft.plan.cost import Cost
from weft.plan.hardware.cluster import Cluster, Span
from weft.plan.hardware.links import Link

Kind = Literal[
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce", "send"
]
Algorithm = Literal["ring", "tree", "double_tree", "halving_doubling", "direct"]

ALGORITHMS: dict[str, tuple[Algorithm, ...]] = {
    "all_reduce": ("ring", "double_tree", "tree", "halving_doubling"),
    "all_gather": ("ring", "halving_doubling"),
    "reduce_scatter": ("ring", "halving_doubling"),
    "all_to_all": ("direct",),
    "broadcast": ("tree", "ring"),
    "reduce": ("tree", "ring"),
    "send": ("direct",),
}
# What libraries pick from: rings inside a node, rings or two trees between nodes.
_INNER_CHOICES: tuple[Algorithm, ...] = ("ring", "tree", "direct")
_OUTER_CHOICES: tuple[Algorithm, ...] = ("ring", "double_tree", "tree", "direct")
# A pipelined tree works on pieces; each rank forwards one while it receives the next.
_TREE_PIECES = 64
# Pieces of a two-level collective: while one crosses nodes the next is summed inside.
_LEVEL_PIECES = 8


def bus_factor(kind: Kind, num_ranks: int) -> float:
    """Return bus bandwidth over algorithm bandwidth (nccl-tests, PERFORMANCE.md).

    >>> bus_factor("all_reduce", 8), bus_factor("all_gather", 8), bus_factor("broadcast", 8)
    (1.75, 0.875, 1.0)
    """
    _check(kind)
    if num_ranks <= 1:
        return 0.0
    if kind == "all_reduce":
        return 2.0 * (num_ranks - 1) / num_ranks
    if kind in ("all_gather", "reduce_scatter", "all_to_all"):
        return (num_ranks - 1) / num_ranks
    return 1.0


def bus_bandwidth(kind: Kind, num_ranks: int, num_bytes: float, seconds: float) -> float:
    """Return the bus bandwidth of a measurement, in bytes per second."""
    return num_bytes / seconds * bus_factor(kind, num_ranks)


def algorithm_seconds(
    kind: Kind, algorithm: Algorithm, num_ranks: int, num_bytes: float, link: Link
) -> float:
    """Return the time of one algorithm on ranks that share one kind of link.

    Raises:
        ConfigError: the algorithm does not do this collective.
    """
    _check(kind)
    if algorithm not in ALGORITHMS[kind]:
        raise ConfigError(
            f"{algorithm!r} does no {kind}", fix=f"choose from {', '.join(ALGORITHMS[kind])}"
        )
    if num_ranks <= 1 or num_bytes <= 0.0:
        return 0.0
    steps, sent = _steps_and_bytes(kind, algorithm, num_ranks, num_bytes)
    return link.seconds(sent, steps=steps)


def _steps_and_bytes(
    kind: Kind, algorithm: Algorithm, num_ranks: int, num_bytes: float
) -> tuple[int, float]:
    """Dependent steps, and bytes the busiest rank sends one way."""
    n, levels = num_ranks, math.ceil(math.log2(num_ranks))
    rounds = 2 if kind == "all_reduce" else 1
    if algorithm == "direct":
        return (1, num_bytes) if kind == "send" else (n - 1, num_bytes * (n - 1) / n)
    if algorithm == "ring" and kind in ("broadcast", "reduce"):
        pieces = _TREE_PIECES
        return n - 2 + pieces, num_bytes * (1 + (n - 2) / pieces)
    if algorithm == "ring":
        return rounds * (n - 1), rounds * num_bytes * (n - 1) / n
    if algorithm == "halving_doubling":
        extra = 0 if n & (n - 1) == 0 else 1  # a step before and after for odd ranks
        return rounds * (levels + extra), rounds * num_bytes * ((n - 1) / n + extra)
    # In one tree an inner rank passes the sum up and the result to two children; with two trees
    # every rank is inner in one, with half of the buffer, and a leaf in the other.
    depth = max(1, int(math.log2(n)))
    if algorithm == "double_tree":
        return 2 * depth, num_bytes * {2: 1.0, 3: 1.5}.get(n, 2.0)
    children = min(n - 1, 2)
    sent = {"all_reduce": min(n - 1, 3), "broadcast": children, "reduce": 1}[kind]
    return rounds * depth, float(num_bytes * sent)


@dataclass(frozen=True)
class Choice:
    """One way to do a collective on a cluster.

    Attributes:
        seconds: How long it takes.
        algorithm: Which was fastest inside and across nodes.
        inner_bytes: Bytes a device sends inside its node.
        outer_bytes: Bytes a device sends between nodes.
    """

    seconds: float
    algorithm: str
    inner_bytes: float
    outer_bytes: float


def choose(
    kind: Kind, num_bytes: float, cluster: Cluster, group_size: int, *, stride: int = 1
) -> Choice:
    """Return the fastest way for a group of ``group_size`` ranks, ``stride`` apart.

    A group in one node uses the inner link; one rank per node the outer one; both, two levels:
    an all-reduce is then a reduce-scatter inside, an all-reduce of a share between the nodes and
    an all-gather inside, and the outer link of every device carries one share. Large buffers go in
    pieces, so the levels overlap and the slower one counts.
    """
    span = cluster.span(group_size, stride)
    if group_size <= 1 or num_bytes <= 0.0:
        return Choice(0.0, "none", 0.0, 0.0)
    if span.across == 1:
        return _flat(kind, num_bytes, span.inside, cluster.scale_up, inner=True)
    if span.inside == 1:
        return _flat(kind, num_bytes, span.across, cluster.scale_out, inner=False)
    if kind == "all_to_all":
        return _local_all_to_all(num_bytes, span, cluster)
    return _two_level(kind, num_bytes, span, cluster)


def hierarchical_all_reduce_seconds(
    num_bytes: float, span: Span, inner: Link, outer: Link
) -> float:
    """Return the three phases of a two-level all-reduce one after the other, none overlapped.

    ``2(i−1)/i·S/β_in + 2(a−1)/a·(S/i)/β_out`` for ``i`` ranks inside and ``a`` nodes.
    """
    phases: tuple[tuple[Kind, int, float, Link], ...] = (
        ("reduce_scatter", span.inside, num_bytes, inner),
        ("all_reduce", span.across, num_bytes / span.inside, outer),
        ("all_gather", span.inside, num_bytes, inner),
    )
    return sum(algorithm_seconds(kind, "ring", n, size, link) for kind, n, size, link in phases)


def collective_cost(
    name: str,
    kind: Kind,
    num_bytes: float,
    cluster: Cluster,
    group_size: int,
    *,
    stride: int = 1,
) -> Cost:
    """Return the cost of one collective, with the bytes this device sends."""
    choice = choose(kind, num_bytes, cluster, group_size, stride=stride)
    return Cost(
        name=name,
        seconds=choice.seconds,
        network_bytes=choice.inner_bytes + choice.outer_bytes,
        bound="network",
        grade=cluster.device.grade,
    )


def send_seconds(num_bytes: float, cluster: Cluster, *, stride: int = 1) -> float:
    """Return the time of one message to the rank ``stride`` further on."""
    inside = stride < cluster.devices_per_node
    return (cluster.scale_up if inside else cluster.scale_out).seconds(num_bytes)


def _flat(kind: Kind, num_bytes: float, num_ranks: int, link: Link, *, inner: bool) -> Choice:
    allowed = _INNER_CHOICES if inner else _OUTER_CHOICES
    names: list[Algorithm] = [name for name in ALGORITHMS[kind] if name in allowed]
    if inner and kind == "all_reduce":
        names = ["ring"]
    best = min(names, key=lambda name: algorithm_seconds(kind, name, num_ranks, num_bytes, link))
    seconds = algorithm_seconds(kind, best, num_ranks, num_bytes, link)
    _, sent = _steps_and_bytes(kind, best, num_ranks, num_bytes)
    return Choice(seconds, best, sent if inner else 0.0, 0.0 if inner else sent)


def _two_level(kind: Kind, num_bytes: float, span: Span, cluster: Cluster) -> Choice:
    share = num_bytes / span.inside
    if kind == "all_reduce":
        phases: tuple[tuple[Kind, bool], ...] = (
            ("reduce_scatter", True), ("all_reduce", False), ("all_gather", True),
        )  # fmt: skip
    elif kind == "broadcast":
        phases = (("broadcast", False), ("broadcast", True))
        share = num_bytes
    elif kind == "reduce":
        phases = (("reduce", True), ("reduce", False))
        share = num_bytes
    else:
        phases = ((kind, False), (kind, True))
    parts = [
        _flat(step, num_bytes, span.inside, cluster.scale_up, inner=True)
        if inner
        else _flat(step, share, span.across, cluster.scale_out, inner=False)
        for step, inner in phases
    ]
    inner_s = sum(part.seconds for part in parts if part.inner_bytes)
    outer_s = sum(part.seconds for part in parts if part.outer_bytes)
    return Choice(
        seconds=max(inner_s, outer_s) + min(inner_s, outer_s) / _LEVEL_PIECES,
        algorithm="two-level " + "+".join(part.algorithm for part in parts),
        inner_bytes=sum(part.inner_bytes for part in parts),
        outer_bytes=sum(part.outer_bytes for part in parts),
    )


def _local_all_to_all(num_bytes: float, span: Span, cluster: Cluster) -> Choice:
    """Messages inside the node and between nodes travel at the same time."""
    inner_bytes = num_bytes * (span.inside - 1) / span.size
    outer_bytes = num_bytes * (span.size - span.inside) / span.size
    inner_s = cluster.scale_up.seconds(inner_bytes, steps=span.inside - 1)
    outer_s = cluster.scale_out.seconds(outer_bytes, steps=span.across - 1)
    return Choice(max(inner_s, outer_s), "direct", inner_bytes, outer_bytes)


def _check(kind: str) -> None:
    if kind not in ALGORITHMS:
        raise ConfigError(f"no collective is called {kind!r}", fix=did_you_mean(kind, ALGORITHMS))


@dataclass(frozen=True)
class LinkFit:
    """A link's constants recovered from measurements.

    Attributes:
        start_s: Intercept of the large-message regime.
        rate: Bus bytes per second of the large-message regime.
        median_error: Median relative error on the measurements.
    """

    start_s: float
    rate: float
    median_error: float


def fit_link(
    kind: Kind, num_ranks: int, num_bytes: Sequence[float], seconds: Sequence[float]
) -> LinkFit:
    """Recover start and rate by least squares on relative errors.

    Raises:
        ConfigError: fewer than two sizes, or a time that is not positive.
    """
    size = np.asarray(num_bytes, float) * bus_factor(kind, num_ranks)
    time = np.asarray(seconds, float)
    if len(np.unique(size)) < 2 or bool(np.any(time <= 0.0)):
        raise ConfigError(
            "a link is fitted from times at two or more sizes, all above 0",
            fix="measure at least one small and one large message",
        )
    design = np.stack([1.0 / time, size / time], axis=1)
    (start_s, per_byte), *_ = np.linalg.lstsq(design, np.ones_like(time), rcond=None)
    if start_s < 0.0:
        start_s, per_byte = 0.0, float(np.median(time / size))
    predicted = start_s + size * per_byte
    error = float(np.median(np.abs(predicted / time - 1.0)))
    return LinkFit(float(start_s), 1.0 / float(per_byte), error)
