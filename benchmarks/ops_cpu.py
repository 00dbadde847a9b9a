"""How much faster is each op than plain torch on this CPU, and how close to its bandwidth?

Implementations of one op are timed in turn, round by round, in process CPU time, so that a
busy machine slows all of them alike; the ratio of medians is what counts.

    python benchmarks/ops_cpu.py                  # one thread
    python benchmarks/ops_cpu.py --threads 2 --json ops_cpu.json --only rms_norm
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.ops import PagedLayout, ScoreRule
from weft.ops.dispatch import KernelSpec
from weft.ops.machine import read_bandwidth
from weft.ops.native import native_status
from weft.ops.registry import (
    KERNELS,
    LINEAR_CROSS_ENTROPY,
    LINEAR_LOG_PROBS,
    PACKED_ATTENTION,
    PAGED_ATTENTION,
    RMS_NORM,
    ROTARY,
    SWIGLU,
)


@dataclass(frozen=True)
class Case:
    """One op on one set of arguments; ``leaves`` get gradients if there are any."""

    spec: KernelSpec
    label: str
    args: tuple[Any, ...]
    leaves: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Row:
    op: str
    case: str
    dtype: str
    implementation: str
    milliseconds: float
    speedup: float  # reference time / this time
    gigabytes_per_s: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=[spec.name for spec in KERNELS])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bandwidth = read_bandwidth(budget_s=0.5)
    print(f"torch {torch.__version__}, {options.threads} threads, read {bandwidth / 1e9:.1f} GB/s")
    print(native_status())
    rows: list[Row] = []
    for dtype in (torch.float32, torch.bfloat16):
        for case in cases(dtype):
            if options.only in (None, case.spec.name):
                rows += measure(case, dtype, options.rounds)
    if options.json:
        result = {"read_gigabytes_per_s": bandwidth / 1e9, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def cases(dtype: torch.dtype) -> list[Case]:
    """The shapes of a small model in training (4096 tokens, width 256) and in decode (64 rows)."""
    return [*_row_cases(dtype), *_attention_cases(dtype), *_loss_cases(dtype)]


def _row_cases(dtype: torch.dtype) -> list[Case]:
    found = []
    for tokens, mode in ((4096, "train"), (4096, "forward"), (64, "decode")):
        train = mode == "train"
        x, weight = _random(train, dtype, tokens, 256), _random(train, dtype, 256)
        found.append(Case(RMS_NORM, mode, (x, weight, 1e-6), (x, weight) if train else ()))
        merged = _random(train, dtype, tokens, 12, 32)
        heads, weight = merged[:, :8], _random(train, dtype, 32)
        leaves = (merged, weight) if train else ()
        found.append(Case(RMS_NORM, f"{mode} heads", (heads, weight, 1e-6), leaves))
        gate_up = _random(train, dtype, tokens, 2 * 768)
        found.append(Case(SWIGLU, mode, (gate_up,), (gate_up,) if train else ()))
        angles = torch.rand(tokens, 16)
        for layout in ("half", "interleaved"):
            args = (heads, angles.cos(), angles.sin(), layout)
            found.append(Case(ROTARY, f"{mode} {layout}", args, (merged,) if train else ()))
    return found


def _attention_cases(dtype: torch.dtype) -> list[Case]:
    found = []
    lengths = {
        "16 x 256": (256,) * 16,
        "8 x 512": (512,) * 8,
        "ragged": tuple(17 + 37 * i % 200 for i in range(36)),
        "2 lengths": (96, 128) * 18,
    }
    for label, documents in lengths.items():
        total = sum(documents)
        q, k, v = (_random(True, dtype, total, n, 32) for n in (8, 4, 4))
        args = (q, k, v, documents, documents, ScoreRule(32**-0.5))
        found.append(Case(PACKED_ATTENTION, label, args, (q, k, v)))
    for rows, context, new in (
        (1, 1024, 1),
        (64, 200, 1),
        (16, 1000, 1),
        (4, 256, 256),
        (4, 512, 64),
    ):
        k, v = (_random(False, dtype, 20_000, 4, 32) for _ in range(2))
        slots = torch.randint(0, 20_000 // 16, (rows, (context + 15) // 16)) * 16
        slots_BS = (slots.unsqueeze(-1) + torch.arange(16)).flatten(1)[:, :context].contiguous()
        layout = PagedLayout((new,) * rows, (context,) * rows, slots_BS, new == 1)
        args = (_random(False, dtype, rows * new, 8, 32), k, v, layout, ScoreRule(32**-0.5))
        found.append(Case(PAGED_ATTENTION, f"{rows} rows, {new} of {context}", args))
    return found


def _loss_cases(dtype: torch.dtype) -> list[Case]:
    found = []
    for tokens, chunk in ((256, 512), (4096, 512), (4096, 2048)):
        hidden, weight = _random(True, dtype, tokens, 256), _random(True, dtype, 8192, 256)
        targets, leaves = torch.randint(0, 8192, (tokens,)), (hidden, weight)
        label = f"{tokens} tokens, chunk {chunk}"
        found.append(
            Case(LINEAR_CROSS_ENTROPY, label, (hidden, weight, targets, chunk, -100), leaves)
        )
        found.append(Case(LINEAR_LOG_PROBS, label, (hidden, weight, targets, 1.0, chunk), leaves))
    return found


def _random(grad: bool, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(*shape).to(dtype).requires_grad_(grad)


def measure(case: Case, dtype: torch.dtype, rounds: int) -> list[Row]:
    """Time every implementation of a case in turn and print one line each."""
    peers = {"reference": case.spec.reference}
    if case.spec is RMS_NORM:
        peers["F.rms_norm"] = lambda x, w, eps: F.rms_norm(x, x.shape[-1:], w, eps)
    for implementation in case.spec.implementations:
        if implementation.accepts(*case.args):
            peers[implementation.name] = implementation.function
    runs = {name: _runner(case, function) for name, function in peers.items()}
    repeats = {name: _repeats(run) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(_time(run, repeats[name]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = [_row(case, dtype, name, s, medians["reference"]) for name, s in medians.items()]
    for row in rows:
        rate = "" if row.gigabytes_per_s is None else f"{row.gigabytes_per_s:7.1f} GB/s"
        print(
            f"{row.op:21} {row.case:24} {row.dtype:9} {row.implementation:11}"
            f"{row.milliseconds:10.4f} ms {row.speedup:7.2f}x {rate}"
        )
    return rows


def _row(case: Case, dtype: torch.dtype, name: str, seconds: float, reference_s: float) -> Row:
    rate = None
    if case.spec.num_bytes is not None and not case.leaves:
        rate = case.spec.num_bytes(*case.args) / seconds / 1e9
    label = str(dtype).removeprefix("torch.")
    return Row(case.spec.name, case.label, label, name, seconds * 1e3, reference_s / seconds, rate)


def _runner(case: Case, function: Callable[..., Any]) -> Callable[[], None]:
    if not case.leaves:

        def forward() -> None:
            with torch.inference_mode():
                function(*case.args)

        return forward

    def train() -> None:
        for leaf in case.leaves:
            leaf.grad = None
        out = function(*case.args)
        out = out[0] if isinstance(out, tuple) else out
        out.backward(torch.ones_like(out), retain_graph=True)

    return train


def _repeats(run: Callable[[], None]) -> int:
    """Return how often to run per round so that the clock's grain does not matter."""
    run()
    return max(1, min(2000, int(0.02 / max(_time(run, 2), 1e-6))))


def _time(run: Callable[[], None], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


if __name__ == "__main__":
    main()
