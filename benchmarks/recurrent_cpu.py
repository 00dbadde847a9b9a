"""How much do chunks save over the token-by-token recurrence, and what does a decode step cost?

Prefill and training: each op by chunks against its own recurrence, forward and with backward, in
process CPU time and in turn. Decoding: one token of each of many sequences against the time a
copy of their states takes, which is the least any step must move.

    python benchmarks/recurrent_cpu.py                  # one thread
    python benchmarks/recurrent_cpu.py --threads 2 --json recurrent_cpu.json
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

from weft.ops.dispatch import KernelSpec
from weft.ops.recurrent import DELTA_RULE, LINEAR_ATTENTION, WKV

TOKENS, HEADS, KEYS, VALUES, CHANNELS = 512, 4, 128, 128, 768
ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """One comparison; ``ratio`` is baseline over ours."""

    case: str
    milliseconds: float
    baseline: str
    baseline_milliseconds: float

    @property
    def ratio(self) -> float:
        return self.baseline_milliseconds / self.milliseconds


def compare(case: str, ours: Callable[[], Any], name: str, baseline: Callable[[], Any]) -> Row:
    """Time two functions in turn and return the medians."""
    times: tuple[list[float], list[float]] = ([], [])
    for function in (ours, baseline):
        function()
    for _ in range(ROUNDS):
        for function, record in zip((ours, baseline), times, strict=True):
            start_s = time.process_time()
            function()
            record.append(1e3 * (time.process_time() - start_s))
    return Row(case, statistics.median(times[0]), name, statistics.median(times[1]))


def arguments(op: str, decay: int, lengths: tuple[int, ...]) -> tuple[KernelSpec, list[Any]]:
    """Return an op and random arguments; ``decay`` is the width of a decay, 0 for none."""
    tokens = sum(lengths)
    if op == "wkv":
        k, v = torch.randn(2, tokens, CHANNELS)
        return WKV, [torch.rand(CHANNELS), torch.randn(CHANNELS), k, v, lengths, None]
    q, k, v = (torch.randn(tokens, HEADS, width) for width in (KEYS, KEYS, VALUES))
    log_decay = -torch.rand(tokens, HEADS, decay) if decay else None
    if op == "linear_attention":
        return LINEAR_ATTENTION, [q, k, v, log_decay, lengths, None]
    beta = torch.rand(tokens, HEADS)
    return DELTA_RULE, [q, F.normalize(k, dim=-1), v, beta, log_decay, lengths, None]


def with_backward(function: Callable[..., Any], args: list[Any]) -> None:
    """Run forward and backward with gradients for every tensor."""
    leaves = [x.detach().requires_grad_() if isinstance(x, Tensor) else x for x in args]
    function(*leaves)[0].sum().backward()


def chunk_rows() -> list[Row]:
    """Compare chunks with the recurrence."""
    rows = []
    ops = ("linear_attention", "delta_rule")
    for op, decay in (*((op, d) for op in ops for d in (0, 1, KEYS)), ("wkv", 0)):
        spec, args = arguments(op, decay, (TOKENS,))
        case = f"{op}, {('no decay', 'decay per head')[decay] if decay < 2 else 'per channel'}"
        with torch.inference_mode():
            rows.append(
                compare(case, lambda s=spec, a=args: s(*a), "recurrence",
                        lambda s=spec, a=args: s.reference(*a))
            )  # fmt: skip
        rows.append(
            compare(f"{case}, with backward", lambda s=spec, a=args: with_backward(s, a),
                    "recurrence", lambda s=spec, a=args: with_backward(s.reference, a))
        )  # fmt: skip
    return rows


def decode_rows() -> list[Row]:
    """Compare a step of single tokens with copying their states once."""
    rows = []
    for num_sequences in (1, 16, 64):
        spec, args = arguments("delta_rule", 1, (1,) * num_sequences)
        state = torch.randn(num_sequences, HEADS, KEYS, VALUES)
        target = torch.empty_like(state)
        args[-1] = state
        with torch.inference_mode():
            rows.append(
                compare(f"decode {num_sequences} sequences", lambda s=spec, a=args: s(*a),
                        "copy of the states", lambda t=target, s=state: t.copy_(s))
            )  # fmt: skip
    return rows


def main() -> None:
    """Print every comparison and perhaps store them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = [*chunk_rows(), *decode_rows()]
    for row in rows:
        print(
            f"{row.case:48} {row.milliseconds:8.2f} ms   {row.baseline} "
            f"{row.baseline_milliseconds:8.2f} ms   x{row.ratio:.2f}"
        )
    if options.json:
        stored = [{**asdict(row), "ratio": row.ratio} for row in rows]
        options.json.write_text(json.dumps({"threads": options.threads, "rows": stored}, indent=1))


if __name__ == "__main__":
    main()
