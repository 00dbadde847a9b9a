"""Collective algorithms run step by step: the sums come out right, and each link's bytes counted.

The cost formulas of ``weft.plan.collectives`` say how much every rank sends. Here the algorithms
themselves move numbers between arrays; what crosses each directed link is counted, so that formula
and algorithm cannot drift apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from weft.core.errors import ConfigError
from weft.plan.collectives import Algorithm


class Transfer(NamedTuple):
    """Send pieces ``[first, last)`` from one rank to another.

    Attributes:
        source: Sending rank.
        target: Receiving rank.
        first: First piece.
        last: One past the last piece.
        add: Add to what the target has; else replace it.
    """

    source: int
    target: int
    first: int
    last: int
    add: bool


@dataclass
class Traffic:
    """What an algorithm did.

    Attributes:
        buffers: Final buffers, one row per rank.
        link_bytes: Bytes by (source, target).
        num_steps: Dependent steps.
    """

    buffers: np.ndarray
    link_bytes: Counter[tuple[int, int]] = field(default_factory=Counter)
    num_steps: int = 0

    def sent_bytes(self, rank: int) -> int:
        """Return what one rank sent."""
        return sum(size for (source, _), size in self.link_bytes.items() if source == rank)

    @property
    def busiest_bytes(self) -> int:
        """Bytes of the rank that sent most."""
        return max(self.sent_bytes(rank) for rank in range(len(self.buffers)))


def run_all_reduce(algorithm: Algorithm, buffers: np.ndarray) -> Traffic:
    """Sum the rows of ``buffers`` into every row, moving numbers as the algorithm does.

    Args:
        algorithm: "ring", "halving_doubling", "tree" or "double_tree".
        buffers: [ranks, numbers]; the numbers divide by the ranks (by 2 for trees).

    Raises:
        ConfigError: halving and doubling on ranks that are no power of two, or an uneven buffer.
    """
    num_ranks, size = buffers.shape
    num_pieces = 2 if algorithm in ("tree", "double_tree") else num_ranks
    if size % num_pieces:
        raise ConfigError(f"{size} numbers do not split into {num_pieces} equal pieces")
    return _run(_steps(algorithm, num_ranks), buffers, size // num_pieces)


def run_hierarchical_all_reduce(buffers: np.ndarray, ranks_per_node: int) -> Traffic:
    """Sum by reduce-scatter inside nodes, rings between equal places, all-gather inside.

    Args:
        buffers: [ranks, numbers]; ranks of a node are neighbours.
        ranks_per_node: Ranks that share a node.
    """
    num_ranks, size = buffers.shape
    if num_ranks % ranks_per_node or size % num_ranks:
        raise ConfigError(
            f"{num_ranks} ranks in nodes of {ranks_per_node} cannot share {size} numbers evenly"
        )
    inside, across = ranks_per_node, num_ranks // ranks_per_node
    nodes = [[node * inside + place for place in range(inside)] for node in range(across)]
    rails = [[node * inside + place for node in range(across)] for place in range(inside)]
    scatter = _together(_ring_scatter(node, 0, across) for node in nodes)
    # After the scatter, place p of a node holds the sum of share (p + 1) % inside.
    between = _together(
        [*_ring_scatter(rail, first, 1), *_ring_gather(rail, first, 1)]
        for place, rail in enumerate(rails)
        for first in [(place + 1) % inside * across]
    )
    gather = _together(_ring_gather(node, 0, across) for node in nodes)
    return _run(iter([*scatter, *between, *gather]), buffers, size // num_ranks)


def _run(steps: Iterator[list[Transfer]], buffers: np.ndarray, piece: int) -> Traffic:
    traffic = Traffic(buffers.copy())
    for step in steps:
        traffic.num_steps += 1
        # All sends of a step read what was there before it.
        payloads = [
            traffic.buffers[move.source, move.first * piece : move.last * piece].copy()
            for move in step
        ]
        for move, payload in zip(step, payloads, strict=True):
            part = traffic.buffers[move.target, move.first * piece : move.last * piece]
            part[...] = part + payload if move.add else payload
            traffic.link_bytes[move.source, move.target] += payload.nbytes
    return traffic


def _steps(algorithm: Algorithm, num_ranks: int) -> Iterator[list[Transfer]]:
    ranks = list(range(num_ranks))
    if algorithm == "ring":
        return iter([*_ring_scatter(ranks, 0, 1), *_ring_gather(ranks, 0, 1)])
    if algorithm == "halving_doubling":
        return _halving_doubling(num_ranks)
    if algorithm == "tree":
        return iter(_tree(ranks, 0, 2))
    if algorithm == "double_tree":
        # The second tree is the first one shifted by a rank, so that its inner ranks are the
        # first one's leaves; each carries half of the buffer.
        shifted = [(rank + 1) % num_ranks for rank in ranks]
        return iter(_together([_tree(ranks, 0, 1), _tree(shifted, 1, 2)]))
    raise ConfigError(f"{algorithm!r} does no all-reduce")


def _ring_scatter(ranks: list[int], first: int, width: int) -> list[list[Transfer]]:
    """Reduce-scatter: rank i ends with the sum of share (i + 1) % n."""
    return _ring(ranks, first, width, shift=0, add=True)


def _ring_gather(ranks: list[int], first: int, width: int) -> list[list[Transfer]]:
    """All-gather of shares as ``_ring_scatter`` leaves them."""
    return _ring(ranks, first, width, shift=1, add=False)


def _ring(
    ranks: list[int], first: int, width: int, *, shift: int, add: bool
) -> list[list[Transfer]]:
    n = len(ranks)
    steps = []
    for step in range(n - 1):
        moves = []
        for place, rank in enumerate(ranks):
            piece = first + (place - step + shift) % n * width
            moves.append(Transfer(rank, ranks[(place + 1) % n], piece, piece + width, add))
        steps.append(moves)
    return steps


def _halving_doubling(num_ranks: int) -> Iterator[list[Transfer]]:
    if num_ranks & (num_ranks - 1):
        raise ConfigError(
            f"halving and doubling needs a power of two, not {num_ranks} ranks", fix="use a ring"
        )
    spans = [(0, num_ranks)] * num_ranks
    distance = num_ranks // 2
    while distance:
        moves, kept = [], []
        for rank, (low, high) in enumerate(spans):
            middle = (low + high) // 2
            upper = bool(rank & distance)
            given = (low, middle) if upper else (middle, high)
            kept.append((middle, high) if upper else (low, middle))
            moves.append(Transfer(rank, rank ^ distance, *given, True))
        yield moves
        spans, distance = kept, distance // 2
    distance = 1
    while distance < num_ranks:
        yield [
            Transfer(rank, rank ^ distance, low, high, False)
            for rank, (low, high) in enumerate(spans)
        ]
        spans = [
            (min(low, spans[rank ^ distance][0]), max(high, spans[rank ^ distance][1]))
            for rank, (low, high) in enumerate(spans)
        ]
        distance *= 2


def _tree(ranks: list[int], first: int, last: int) -> list[list[Transfer]]:
    """Reduce to the root of an in-order binary tree, then broadcast down."""
    parents = _in_order_parents(len(ranks))
    depth = max(parents.values(), key=lambda item: item[1])[1] if parents else 0
    up = [
        [
            Transfer(ranks[child], ranks[parent], first, last, True)
            for child, (parent, level) in parents.items()
            if level == wanted
        ]
        for wanted in range(depth, 0, -1)
    ]
    down = [
        [Transfer(move.target, move.source, first, last, False) for move in step]
        for step in reversed(up)
    ]
    return [*up, *down]


def _in_order_parents(size: int) -> dict[int, tuple[int, int]]:
    """Parent and depth of every place but the root; odd places are inner, even ones leaves."""
    parents: dict[int, tuple[int, int]] = {}
    stack = [(0, size, -1, 0)]
    while stack:
        low, high, parent, level = stack.pop()
        if low >= high:
            continue
        middle = _root(low, high)
        if parent >= 0:
            parents[middle] = (parent, level)
        stack += [(low, middle, middle, level + 1), (middle + 1, high, middle, level + 1)]
    return parents


def _root(low: int, high: int) -> int:
    """The place whose left part is the largest complete tree that fits."""
    size = high - low
    if size == 1:
        return low
    half = 1 << (size.bit_length() - 1)
    return low + half - 1


def _together(
    parts: Iterator[list[list[Transfer]]] | list[list[list[Transfer]]],
) -> list[list[Transfer]]:
    """Run independent schedules side by side."""
    schedules = list(parts)
    return [
        [move for schedule in schedules if index < len(schedule) for move in schedule[index]]
        for index in range(max(len(schedule) for schedule in schedules))
    ]
