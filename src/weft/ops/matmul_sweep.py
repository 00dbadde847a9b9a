"""The highest matrix-product rate a device reaches, searched over shapes.

Data sheets give a peak that no product reaches; which shape comes closest depends on tiles, caches
and power (the "maximum achievable matmul FLOPS" of Bekman's ML Engineering book). Ladders of sizes
are tried in random order first, then the neighbours of the best shape, until the time is over.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from weft.core.errors import ConfigError
from weft.ops.linear.onednn import matmul

Shape = tuple[int, int, int]
Measure = Callable[[Shape], float]
"""Floating-point operations per second of one shape (M, N, K)."""
_SHARE_EXPLORING = 0.6


@dataclass(frozen=True)
class Trial:
    """One measured shape.

    Attributes:
        shape: Rows of the first factor, columns of the second, inner width.
        flops: Its rate per second, 2 M N K over the shortest run.
        best: The highest rate so far, this one included.
        best_shape: And its shape.
    """

    shape: Shape
    flops: float
    best: float
    best_shape: Shape


def sweep(
    sizes: Sequence[int],
    measure: Measure,
    *,
    budget_s: float,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Trial]:
    """Measure shapes until the time is over; every trial carries the best so far.

    Args:
        sizes: Ladder that M, N and K are taken from, ascending.
        measure: Rate of a shape, see ``matmul_rate``.
        budget_s: Stop beginning trials after this; at least one is made.
        seed: Of the order.
        clock: Seconds.

    Raises:
        ConfigError: no sizes, or one below 1.
    """
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"sizes are {list(sizes)}", fix="give sizes of at least 1")
    start_s = clock()
    rungs = range(len(sizes))
    shapes = [(m, n, k) for m in rungs for n in rungs for k in rungs]
    random.Random(seed).shuffle(shapes)
    tried: set[tuple[int, int, int]] = set()
    best, best_at = 0.0, shapes[0]
    while len(tried) < len(shapes):
        elapsed_s = clock() - start_s
        if tried and elapsed_s >= budget_s:
            return
        exploring = elapsed_s < _SHARE_EXPLORING * budget_s
        near = () if exploring else _neighbours(best_at, len(sizes))
        at = next((one for one in (*near, *shapes) if one not in tried), shapes[0])
        tried.add(at)
        flops = measure(_shape(sizes, at))
        if flops > best:
            best, best_at = flops, at
        yield Trial(_shape(sizes, at), flops, best, _shape(sizes, best_at))


def matmul_rate(
    dtype: torch.dtype, device: torch.device | str = "cpu", *, min_runs: int = 3
) -> Measure:
    """Return a function that measures a product in ``dtype`` on a device."""
    device = torch.device(device)

    def measure(shape: Shape) -> float:
        m, n, k = shape
        a_MK = torch.randn(m, k, device=device).to(dtype)
        b_NK = torch.randn(n, k, device=device).to(dtype)
        seconds = min(_timed(lambda: _product(a_MK, b_NK), device) for _ in range(min_runs + 1))
        return 2.0 * m * n * k / seconds

    return measure


def _product(a_MK: torch.Tensor, b_NK: torch.Tensor) -> torch.Tensor:
    return matmul(a_MK, b_NK.t()) if a_MK.device.type == "cpu" else a_MK @ b_NK.t()


def _timed(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start_s = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start_s


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _neighbours(at: Shape, num_sizes: int) -> list[Shape]:
    """Return the shapes one rung away on any axes, nearest first."""
    moves = sorted(itertools.product((-1, 0, 1), repeat=3), key=lambda move: sum(map(abs, move)))
    moved = [(at[0] + a, at[1] + b, at[2] + c) for a, b, c in moves]
    return [one for one in moved if all(0 <= index < num_sizes for index in one)]


def _shape(sizes: Sequence[int], at: Shape) -> Shape:
    return sizes[at[0]], sizes[at[1]], sizes[at[2]]
