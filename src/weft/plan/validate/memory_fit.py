"""The constants of the memory ledger, fitted to published peaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from weft.plan.memory_constants import MemoryConstants, memory_constants
from weft.plan.validate.fitting import Constant, fit, values
from weft.plan.validate.rows import Row
from weft.plan.validate.table import Comparison
from weft.plan.validate.training import MEMORY, TrainingCase, compare_memory, read_case

# Priors: what an idle process of a training program shows in nvidia-smi; two flat buckets of 5e8
# numbers in 16 bits and their double buffers (DeepSpeed's defaults); a few percent of rounding.
CONSTANTS = (
    Constant("runtime_bytes", 2.5e9, 1.0, 0.3e9, 6e9),
    Constant("engine_bytes", 4.0e9, 1.0, 0.0, 12e9),
    Constant("bucket_bytes", 0.5e9, 1.0, 0.0, 2e9),
    Constant("slack_share", 0.05, 1.0, 0.0, 0.3),
)


def memory_cases(rows: Sequence[Row]) -> list[TrainingCase]:
    """Return the complete rows that measure memory."""
    return [read_case(row) for row in rows if row.is_complete and row["metric"] in MEMORY]


def fit_memory_constants(cases: Sequence[TrainingCase], *, num_steps: int = 12) -> MemoryConstants:
    """Fit the constants to these rows; their interval is kept."""

    def residuals(x: np.ndarray) -> np.ndarray:
        constants = _constants(x)
        compared = [compare_memory(case, constants) for case in cases]
        return np.log([one.predicted.value / one.measured for one in compared])

    return _constants(fit(CONSTANTS, residuals, num_steps=num_steps))


def leave_one_source_out(cases: Sequence[TrainingCase]) -> list[Comparison]:
    """Predict the peaks of each source with constants fitted to all other sources."""
    found: list[Comparison] = []
    for source in dict.fromkeys(case.row.source for case in cases):
        others = [case for case in cases if case.row.source != source]
        constants = fit_memory_constants(others) if others else MemoryConstants()
        own = (case for case in cases if case.row.source == source)
        found += [compare_memory(case, constants) for case in own]
    return found


def to_toml(constants: MemoryConstants) -> str:
    """Return the text of ``data/memory.toml``."""
    lines = [f"{one.name} = {getattr(constants, one.name):.4g}" for one in fields(constants)]
    head = "# Fitted to published peaks of training memory; see weft.plan.validate.memory_fit.\n"
    return head + "\n".join(lines) + "\n"


def _constants(x: np.ndarray) -> MemoryConstants:
    return replace(memory_constants(), **values(CONSTANTS, x))
