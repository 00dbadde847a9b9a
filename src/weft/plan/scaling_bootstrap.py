"""How sure a fitted scaling law is: the same fit to resampled runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from weft.core.errors import ConfigError
from weft.plan.scaling import LossLaw, fit_loss

_LOW, _HIGH = 10, 90


def bootstrap(
    num_parameters: Sequence[float],
    num_tokens: Sequence[float],
    losses: Sequence[float],
    *,
    num_resamples: int = 20,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return the 80 % interval of each constant (Efron 1979): draw runs with replacement, refit.

    Raises:
        ConfigError: no resamples, or too few runs to fit.
    """
    if num_resamples < 1:
        raise ConfigError(f"{num_resamples} resamples", fix="use at least 1")
    runs = np.array([num_parameters, num_tokens, losses], float)
    rng = np.random.default_rng(seed)
    laws = []
    for _ in range(num_resamples):
        drawn = runs[:, rng.integers(0, runs.shape[1], runs.shape[1])]
        laws.append(fit_loss(*drawn.tolist()))
    return {one.name: _interval([getattr(law, one.name) for law in laws])
            for one in fields(LossLaw)}  # fmt: skip


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.percentile(values, (_LOW, _HIGH))
    return float(low), float(high)
