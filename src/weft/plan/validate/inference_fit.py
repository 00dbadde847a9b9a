"""Fit the constants of serving, leave one source out, and say how good predictions are.

The loss is the mean relative error, each kind of measurement weighted alike, large errors damped:
some published rows are outliers by any model. A pull towards the starting values keeps constants
that the rows hardly show near what kernels are known to reach. The search moves one constant at a
time by a shrinking factor; it needs no gradients and always ends.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

import numpy as np

from weft.core.errors import ConfigError
from weft.plan.inference.constants import ServingConstants
from weft.plan.validate.inference import InferenceCase
from weft.plan.validate.table import Comparison

# Part of each kind of measurement in the loss; others are judged and not fitted.
KIND_WEIGHTS = {
    "static": 3.0,
    "max load": 1.5,
    "closed loop tpot": 1.5,
    "closed loop ttft": 1.0,
    "disaggregated tpot": 0.5,
}
# Ranges outside which a constant would not be physical: shares, and seconds of kernels and hosts.
_SHARES = (0.2, 1.15)
_RANGES = {
    "expert_imbalance": (1.0, 3.0),
    "expert_half_bytes": (1e4, 5e6),
    "popularity_shape": (0.3, 50.0),
    "length_spread": (0.001, 2.0),
    "eager_launch": (1.0, 5.0),
    "kernel_s": (0.3e-6, 8e-6),
    "launch_s": (1e-6, 200e-6),
    "expert_kernel_s": (0.5e-6, 60e-6),
    "expert_launch_s": (10e-6, 5e-3),
    "latent_launch_s": (10e-6, 5e-3),
    "collective_s": (0.1e-6, 15e-6),
    "step_s": (0.05e-3, 5e-3),
    "sequence_s": (1e-6, 40e-6),
    "request_s": (2e-3, 80e-3),
    "static_step_s": (0.01e-3, 2e-3),
}
_DAMPED_FROM, _DAMPED_SLOPE = 0.8, 0.3
_PULL = 0.0015
# A kind with fewer rows than this weighs less.
_FULL_COUNT = 25
_FIRST_STEP = 0.25
_LAST_STEP = 0.02
_SMALLEST_GAIN = 2e-5


def loss(cases: Sequence[InferenceCase], constants: ServingConstants) -> float:
    """Return what the fit makes small."""
    counts = Counter(case.kind for case in cases)
    total, weight = 0.0, 0.0
    for case in cases:
        part = KIND_WEIGHTS.get(case.kind, 0.0) / max(counts[case.kind], _FULL_COUNT)
        total += part * _damped(abs(case.predict(constants) / case.measured - 1.0))
        weight += part
    if weight == 0.0:
        raise ConfigError("no row says anything about the constants", fix="give other rows")
    start = ServingConstants()
    pull = sum(
        math.log(getattr(constants, one.name) / getattr(start, one.name)) ** 2
        for one in fields(ServingConstants)
    )
    return total / weight + _PULL * pull


def fit(
    cases: Sequence[InferenceCase],
    start: ServingConstants | None = None,
    *,
    max_rounds: int = 25,
) -> ServingConstants:
    """Return the constants that predict the rows best.

    Args:
        cases: Rows to learn from.
        start: Where the search begins; none means the defaults of ``ServingConstants``.
        max_rounds: Passes over all constants.
    """
    cases = [case for case in cases if case.kind in KIND_WEIGHTS and case.row.is_complete]
    best = start or ServingConstants()
    best_loss = loss(cases, best)
    steps = {one.name: _FIRST_STEP for one in fields(ServingConstants)}
    for _ in range(max_rounds):
        before = best_loss
        for name, step in steps.items():
            moved = [(loss(cases, c), c) for c in _moves(best, name, step)]
            found_loss, found = min(moved, key=lambda pair: pair[0])
            if found_loss < best_loss:
                best, best_loss = found, found_loss
                steps[name] = 1.3 * step
            else:
                steps[name] = 0.5 * step
        if before - best_loss < _SMALLEST_GAIN and max(steps.values()) < _LAST_STEP:
            break
    return best


def leave_one_source_out(
    cases: Sequence[InferenceCase], *, max_rounds: int = 25
) -> list[Comparison]:
    """Predict the rows of each source with constants fitted to all other sources."""
    found: list[Comparison] = []
    for source in dict.fromkeys(case.row.source for case in cases):
        others = [case for case in cases if case.row.source != source]
        constants = fit(others, max_rounds=max_rounds)
        found += [case.compare(constants) for case in cases if case.row.source == source]
    return found


def interval_factors(comparisons: Iterable[Comparison], coverage: float = 0.82) -> dict[str, float]:
    """Return by quantity the factor that holds so many of the measurements, complete rows only."""
    by_quantity: dict[str, list[float]] = {}
    for one in comparisons:
        if one.complete:
            ratio = one.predicted.value / one.measured
            by_quantity.setdefault(one.quantity, []).append(max(ratio, 1.0 / ratio))
    return {name: float(np.quantile(ratios, coverage)) for name, ratios in by_quantity.items()}


def _damped(error: float) -> float:
    return min(error, _DAMPED_FROM + _DAMPED_SLOPE * (error - _DAMPED_FROM))


def _moves(constants: ServingConstants, name: str, step: float) -> list[ServingConstants]:
    low, high = _RANGES.get(name, _SHARES)
    value = getattr(constants, name)
    moved = (min(high, max(low, value * math.exp(sign * step))) for sign in (1.0, -1.0))
    return [replace(constants, **{name: new}) for new in moved]
