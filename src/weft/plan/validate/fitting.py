"""Fit a handful of positive constants to measured times, robustly and near what physics says.

Levenberg-Marquardt on log ratios with Huber weights; every constant is fitted as a logarithm and
held near its prior by a spring, so that what the rows cannot tell stays where the literature has
it. Leave-one-source-out runs the same fit without one source and judges it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_HUBER = 0.08
_SPRING = 3e-4
_DIFFERENCE = 0.03
_LARGEST_STEP = 0.5

Residuals = Callable[[np.ndarray], np.ndarray]
"""Log of predicted over measured for log constants."""


@dataclass(frozen=True)
class Constant:
    """One constant to fit.

    Attributes:
        name: Field or table entry.
        prior: What is believed beforehand.
        stiffness: How firmly; 1 is loosely.
        low: Least value that makes sense.
        high: Largest value that makes sense.
    """

    name: str
    prior: float
    stiffness: float = 1.0
    low: float = 0.0
    high: float = float("inf")


def start(constants: Sequence[Constant]) -> np.ndarray:
    """Return the logarithms of the priors."""
    return np.log([constant.prior for constant in constants])


def values(constants: Sequence[Constant], x: np.ndarray) -> dict[str, float]:
    """Return constants by name, inside their limits."""
    return {
        constant.name: float(np.clip(np.exp(log), constant.low, constant.high))
        for constant, log in zip(constants, x, strict=True)
    }


def fit(constants: Sequence[Constant], residuals: Residuals, *, num_steps: int = 10) -> np.ndarray:
    """Return the logarithms of the fitted constants."""
    prior, stiffness = start(constants), np.array([c.stiffness for c in constants])
    x, damping = prior.copy(), 1e-5
    current = residuals(x)
    value = _objective(current, x - prior, stiffness)
    for _ in range(num_steps):
        jacobian = _jacobian(residuals, x, current)
        weight = np.minimum(1.0, _HUBER / np.maximum(np.abs(current), 1e-9)) / len(current)
        normal = jacobian.T @ (weight[:, None] * jacobian)
        gradient = jacobian.T @ (weight * current) + 2.0 * _SPRING * stiffness * (x - prior)
        for _ in range(6):
            matrix = normal + np.diag(2.0 * _SPRING * stiffness + damping)
            step = np.clip(-np.linalg.solve(matrix, gradient), -_LARGEST_STEP, _LARGEST_STEP)
            tried = residuals(x + step)
            new_value = _objective(tried, x + step - prior, stiffness)
            if new_value < value:
                break
            damping *= 5.0
        else:
            return x
        gain = value - new_value
        x, current, value, damping = x + step, tried, new_value, max(damping / 4.0, 1e-8)
        if gain < 1e-7:
            return x
    return x


def _jacobian(residuals: Residuals, x: np.ndarray, current: np.ndarray) -> np.ndarray:
    columns = []
    for index in range(len(x)):
        moved = x.copy()
        moved[index] += _DIFFERENCE
        columns.append((residuals(moved) - current) / _DIFFERENCE)
    return np.stack(columns, axis=1)


def _objective(residual: np.ndarray, offset: np.ndarray, stiffness: np.ndarray) -> float:
    size = np.abs(residual)
    loss = np.where(size < _HUBER, size**2 / 2.0, _HUBER * (size - _HUBER / 2.0)).mean()
    return float(loss + _SPRING * np.sum(stiffness * offset**2))
