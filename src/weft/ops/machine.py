"""What this machine can do, measured: peak rates, how many threads to use.

Matrix products give the compute roofline, a sum over a block larger than the caches gives the
bandwidth roofline (Williams et al. 2009, doi:10.1145/1498765.1498785).
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from weft.core.environment import available_cpus, cpu_name, total_memory_bytes
from weft.ops.linear.onednn import matmul
from weft.spec import HardwareSpec

MATMUL_SIZES = ((512, 512, 512), (512, 1024, 3072), (1024, 2048, 1024))
READ_BYTES = 256 * 2**20  # larger than last-level caches


def measure_peaks(budget_s: float = 2.0) -> HardwareSpec:
    """Return the best matrix-product rates and read bandwidth seen within the time budget.

    Measured with the current number of threads. The best of several runs is kept: a roofline
    is a limit, and other processes only ever make a run slower.
    """
    per_type_s = budget_s * 0.4
    rates = {
        str(dtype).removeprefix("torch."): _matmul_flops(dtype, per_type_s)
        for dtype in (torch.float32, torch.bfloat16)
    }
    return HardwareSpec(
        name=cpu_name(),
        matmul_flops=rates,
        memory_bytes=total_memory_bytes(),
        memory_bandwidth=read_bandwidth(budget_s * 0.2),
        num_threads=torch.get_num_threads(),
        grade="measured",
    )


def read_bandwidth(budget_s: float = 0.5) -> float:
    """Return how many bytes per second a sum over memory reads."""
    block = torch.ones(READ_BYTES // 4)
    return READ_BYTES / _best_time(block.sum, budget_s)


def configure_threads(limit: int | None = None) -> int:
    """Set and return how many threads torch uses: the processors that are not busy already.

    Waiting for a thread that another process has displaced makes two threads on a busy
    machine up to 14 times slower than one, so processors in use are left alone. Call before
    work starts; set ``OMP_WAIT_POLICY=PASSIVE`` before torch is imported.
    """
    threads = idle_cpus(available_cpus(), busy_cpus())
    if limit is not None:
        threads = max(1, min(threads, limit))
    torch.set_num_threads(threads)
    return threads


def idle_cpus(num_cpus: int, busy: float) -> int:
    """Return how many of the processors are free when this many are busy, at least one.

    >>> idle_cpus(8, 0.4), idle_cpus(8, 3.2), idle_cpus(2, 7.0)
    (8, 5, 1)
    """
    return max(1, min(num_cpus, num_cpus - int(busy + 0.5)))


# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C allocator keep what tensors free; returns whether the allocator agreed.

    By default glibc gives large blocks back to the system and takes them anew on the next
    training step, and the system clears every page again: about 6 % of a small model's step.
    Call once at the start of a training process; its memory then stays at the peak.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def _matmul_flops(dtype: torch.dtype, budget_s: float) -> float:
    best = 0.0
    for m, k, n in MATMUL_SIZES:
        a, b = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        seconds = _best_time(lambda a=a, b=b: matmul(a, b.t()), budget_s / len(MATMUL_SIZES))
        best = max(best, 2 * m * k * n / seconds)
    return best


def _best_time(run: Callable[[], object], budget_s: float) -> float:
    """Return the shortest of at least three runs after one to warm up, in seconds."""
    run()
    best, end, runs = float("inf"), time.perf_counter() + budget_s, 0
    while runs < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
        runs += 1
    return best


def busy_cpus(interval_s: float = 0.3) -> float:
    """Return how many processors other work keeps busy right now.

    The load average would still count what ended a minute ago, such as our own installation.
    """
    before = _processor_ticks()
    if before is None:
        return _load_average()
    time.sleep(interval_s)
    after = _processor_ticks()
    assert after is not None
    busy, total = (new - old for new, old in zip(after, before, strict=True))
    return available_cpus() * busy / max(total, 1)


def _processor_ticks() -> tuple[int, int] | None:
    """Return (busy, all) clock ticks of all processors, none where the system does not tell."""
    try:
        first_line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    except OSError:
        return None
    ticks = [int(field) for field in first_line.split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _load_average() -> float:
    try:
        return os.getloadavg()[0]
    except OSError:
        return 0.0
