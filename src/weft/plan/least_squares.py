"""Least squares with prices that cannot be negative, for a handful of unknowns."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def non_negative(rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the x >= 0 that makes ``rows @ x - target`` smallest, by trying every set of zeros.

    >>> non_negative(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([1.0, 0.9])).tolist()
    [0.95, 0.0]
    """
    best, best_error = np.zeros(rows.shape[1]), float("inf")
    columns = range(rows.shape[1])
    for kept in (chosen for n in columns for chosen in combinations(columns, n + 1)):
        found, *_ = np.linalg.lstsq(rows[:, kept], target, rcond=None)
        error = float(np.square(rows[:, kept] @ found - target).sum())
        if (found >= 0.0).all() and error < best_error:
            best, best_error = np.zeros(rows.shape[1]), error
            best[list(kept)] = found
    return best
