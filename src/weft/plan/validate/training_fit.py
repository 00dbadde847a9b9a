"""The constants of the training model, fitted to published step times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.plan.training_constants import TrainingConstants, from_table, training_constants
from weft.plan.validate.fitting import Constant, fit, start, values
from weft.plan.validate.rows import Row
from weft.plan.validate.table import Comparison
from weft.plan.validate.training import THROUGHPUT, TrainingCase, compare_speed, read_case

# Priors: matmul shares from kernel sweeps under a power limit, attention from the FlashAttention-2
# report (arXiv:2307.08691) and its portable forerunners, the rest typical of published traces.
CONSTANTS = (
    Constant("sustained_share.ampere-bfloat16", 0.95, 3.0, 0.5, 1.05),
    Constant("sustained_share.hopper-bfloat16", 0.85, 3.0),
    Constant("sustained_share.hopper-float8", 0.75, 3.0),
    Constant("sustained_share.blackwell-bfloat16", 0.80, 3.0),
    Constant("sustained_share.blackwell-float8", 0.80, 3.0),
    Constant("sustained_share.blackwell-float4", 0.70, 3.0),
    Constant("attention_share.ampere", 0.75, 8.0),
    Constant("attention_share.hopper", 0.45, 8.0),
    Constant("attention_share.tuned", 1.0, 8.0),
    Constant("power_exponent", 0.7, 1.0, 0.1, 2.5),
    Constant("inner_half", 150.0, 1.0, 10.0, 1500.0),
    Constant("batched_half", 60.0),
    Constant("traffic", 1.3, 3.0, 0.8, 2.5),
    Constant("gemm_backward", 2.15, 8.0, 1.95, 2.6),
    Constant("attention_backward", 3.2, 8.0, 2.2, 4.0),
    Constant("quantise_bytes", 3.0),
    Constant("overlap_loss", 0.15, 1.0, 0.02, 0.6),
    Constant("reduce_window", 0.6, 1.0, 0.02, 1.5),
    Constant("network_decay", 0.07),
    Constant("tensor_hidden", 0.7, 2.0, 0.1, 1.0),
    Constant("tensor_share", 0.70, 30.0),
    Constant("all_to_all_share", 0.7),
    Constant("expert_hidden", 0.7, 1.0, 0.05, 1.0),
    Constant("expert_host_s", 4e-4),
    Constant("send_exposed", 0.3, 1.0, 0.01, 1.0),
    Constant("engine_s", 11e-3, 1.0),
    Constant("host_s", 0.03),
)


def throughput_cases(rows: Sequence[Row]) -> list[TrainingCase]:
    """Return the complete rows that measure speed."""
    return [read_case(row) for row in rows if row.is_complete and row["metric"] in THROUGHPUT]


def fit_training(cases: Sequence[TrainingCase], *, num_steps: int = 12) -> TrainingConstants:
    """Fit all constants to these rows."""

    def residuals(x: np.ndarray) -> np.ndarray:
        constants = _constants(x)
        return np.array([_log_ratio(case, constants) for case in cases])

    return _constants(fit(CONSTANTS, residuals, num_steps=num_steps))


def leave_one_source_out(cases: Sequence[TrainingCase], *, num_steps: int = 8) -> list[Comparison]:
    """Predict the rates of each source with constants fitted to all other sources."""
    found: list[Comparison] = []
    for source in dict.fromkeys(case.row.source for case in cases):
        others = [case for case in cases if case.row.source != source]
        constants = fit_training(others, num_steps=num_steps) if others else _priors()
        found += [compare_speed(case, constants) for case in cases if case.row.source == source]
    return found


def to_toml(constants: TrainingConstants) -> str:
    """Return the text of ``data/training.toml``."""
    plain, tables = [], []
    for name in constants.__dataclass_fields__:
        value = getattr(constants, name)
        if isinstance(value, dict):
            entries = "\n".join(f"{key} = {number:.4g}" for key, number in value.items())
            tables.append(f"\n[{name}]\n{entries}")
        else:
            plain.append(f"{name} = {value:.4g}")
    head = "# Fitted to published training step times; see weft.plan.validate.training_fit.\n"
    return head + "\n".join(plain) + "\n" + "\n".join(tables) + "\n"


def _constants(x: np.ndarray) -> TrainingConstants:
    table: dict[str, Any] = {
        name: getattr(training_constants(), name) for name in ("interval", "interval_experts")
    }
    for name, value in values(CONSTANTS, x).items():
        first, _, rest = name.partition(".")
        if rest:
            table.setdefault(first, {})[rest] = value
        else:
            table[first] = value
    return from_table(table)


def _priors() -> TrainingConstants:
    return _constants(start(CONSTANTS))


def _log_ratio(case: TrainingCase, constants: TrainingConstants) -> float:
    return float(np.log(case.predict(constants).total_s / case.measured_step_s))
