"""What do the inputs of a step cost, and would block tables kept between steps be cheaper?

``build_batch`` writes every block table of a decode step afresh from the plan. The alternative has
one row of slots per live sequence and copies only tables that changed, which the plan's tuples tell
by identity; each step gathers its rows by one index. Both make the same tensor, which is checked.

    python benchmarks/step_inputs.py --json step_inputs.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from record import record

from weft.engine.batch import _slot_table, build_batch
from weft.sched.plan import StepItem

BLOCK_SIZE = 16


class SlotRows:
    """One row of slots per live sequence; rows are written when their table is another tuple."""

    def __init__(self, num_rows: int, max_context: int) -> None:
        self._slots_NS = np.zeros((num_rows, max_context + BLOCK_SIZE), dtype=np.int64)
        self._tables: dict[int, tuple[int, ...]] = {}
        self._rows: dict[int, int] = {}

    def gather(self, items: list[StepItem], contexts_B: np.ndarray) -> np.ndarray:
        """Return what ``_slot_table`` returns."""
        offsets = np.arange(BLOCK_SIZE)
        for item in items:
            if self._tables.get(item.id) is not item.blocks:
                row = self._rows.setdefault(item.id, len(self._rows))
                slots = (np.array(item.blocks)[:, None] * BLOCK_SIZE + offsets).ravel()
                self._slots_NS[row, : len(slots)] = slots
                self._tables[item.id] = item.blocks
        width = int(contexts_B.max())
        slots_BS = self._slots_NS[[self._rows[item.id] for item in items], :width]
        return np.where(np.arange(width) < contexts_B[:, None], slots_BS, slots_BS[:, :1])


def main() -> None:
    options = parse_options()
    results = []
    print(f"median of {options.steps} decode steps in microseconds")
    heads = ("sequences", "context", "whole", "table", "kept rows", "ratio")
    print("{:>9} {:>8} {:>8} {:>8} {:>10} {:>6}".format(*heads))
    for num_sequences in options.sequences:
        for context in options.contexts:
            result = measure(num_sequences, context, options.steps)
            results.append(result)
            print(
                f"{num_sequences:9d} {context:8d} {result['build_batch_us']:8.0f} "
                f"{result['afresh_us']:8.0f} {result['kept_us']:10.0f} {result['ratio']:6.2f}"
            )
    record(options, results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 1024, 8192])
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(num_sequences: int, context: int, num_steps: int) -> dict[str, float]:
    """Return the median times of both ways, run by turns on the same steps."""
    tables = {
        id: tuple(range(id * 1000, id * 1000 + context // BLOCK_SIZE))
        for id in range(num_sequences)
    }
    rows = SlotRows(num_sequences, context + num_steps)
    times: dict[str, list[float]] = {"build_batch_us": [], "afresh_us": [], "kept_us": []}
    for step in range(num_steps):
        items = []
        for id in range(num_sequences):
            start = context - BLOCK_SIZE + step + id % BLOCK_SIZE
            if start // BLOCK_SIZE >= len(tables[id]):
                tables[id] = (*tables[id], 10**6 + id * 1000 + len(tables[id]))
            items.append(StepItem(id, (7,), start, tables[id], True))
        contexts_B = np.array([item.start + 1 for item in items])
        blocks = [item.blocks for item in items]
        afresh = timed(times["afresh_us"], lambda b=blocks, c=contexts_B: _slot_table(b, c, 16))
        kept = timed(times["kept_us"], lambda i=items, c=contexts_B: rows.gather(i, c))
        timed(times["build_batch_us"], lambda i=items: build_batch(i, BLOCK_SIZE))
        assert (afresh == kept).all()
    medians = {name: statistics.median(values[5:]) for name, values in times.items()}
    ratio = medians["kept_us"] / medians["afresh_us"]
    return {"num_sequences": num_sequences, "context": context, **medians, "ratio": ratio}


def timed(times: list[float], call: Callable[[], object]) -> np.ndarray:
    start_s = time.perf_counter()
    result = call()
    times.append((time.perf_counter() - start_s) * 1e6)
    return result


if __name__ == "__main__":
    main()
