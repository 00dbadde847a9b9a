"""What do keys and values of one byte cost or save in a decode step on this CPU?

Types are timed in turn, round by round, in process CPU time, so that a busy machine slows all of
them alike. "gathered" is the torch path, which turns the codes of the slots in use back first.

    python benchmarks/quantized_kv.py                          # 8 sequences of 4096 positions
    python benchmarks/quantized_kv.py --threads 2 --chunk 64   # a chunk of a prompt instead
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from weft.ops import PagedLayout, ScoreRule
from weft.ops.attention import native, paged
from weft.ops.native import native_status
from weft.ops.scaled_rows import CODE_LIMITS, Rows, ScaledRows, quantize

NUM_HEADS, NUM_KV_HEADS, HEAD_WIDTH, BLOCK_SIZE = 16, 8, 128, 16


def tables(num_slots: int, dtype: torch.dtype) -> tuple[Rows, Rows]:
    """Return random keys and values of one type."""
    values = [torch.randn(num_slots, NUM_KV_HEADS, HEAD_WIDTH) for _ in range(2)]
    if dtype not in CODE_LIMITS:
        return values[0].to(dtype), values[1].to(dtype)
    return ScaledRows(*quantize(values[0], dtype)), ScaledRows(*quantize(values[1], dtype))


def scattered_layout(rows: int, context: int, chunk: int) -> PagedLayout:
    """Return sequences in blocks all over the cache."""
    blocks = torch.randperm(rows * context // BLOCK_SIZE).view(rows, -1)
    slots_BS = (blocks[:, :, None] * BLOCK_SIZE + torch.arange(BLOCK_SIZE)).reshape(rows, -1)
    return PagedLayout((chunk,) * rows, (context,) * rows, slots_BS, decode=chunk == 1)


def cpu_ms(function: Callable[[], Tensor]) -> float:
    start = time.process_time()
    function()
    return 1e3 * (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    print(native_status())
    layout = scattered_layout(options.rows, options.context, options.chunk)
    q_TNH = torch.randn(options.rows * options.chunk, NUM_HEADS, HEAD_WIDTH)
    rule = ScoreRule(HEAD_WIDTH**-0.5)
    types = (torch.float32, torch.bfloat16, *CODE_LIMITS)
    kv = {dtype: tables(options.rows * options.context, dtype) for dtype in types}
    times: dict[tuple[torch.dtype, str], list[float]] = {}
    for _ in range(options.rounds):
        for dtype, (keys, values) in kv.items():
            for name, module in (("native", native), ("gathered", paged)):
                run = partial(module.paged_attention, q_TNH, keys, values, layout, rule)
                if name == "gathered" or native.accepts(q_TNH, keys, values, layout, rule):
                    times.setdefault((dtype, name), []).append(cpu_ms(run))
    for (dtype, name), samples in times.items():
        print(f"{dtype!s:20} {name:9} {statistics.median(samples):8.2f} ms")


if __name__ == "__main__":
    main()
