"""Confidence intervals, so that a number from n questions is not read as more than it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class Interval:
    """A range that holds the true value with the stated confidence.

    Attributes:
        low: Lower end.
        high: Upper end.
        confidence: Such as 0.95.
    """

    low: float
    high: float
    confidence: float = 0.95

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"[{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share of successes.

    Unlike the normal approximation it stays inside [0, 1] and is not empty at 0 or n successes
    (Wilson 1927; Brown, Cai and DasGupta 2001). With no trials it is [0, 1].

    >>> interval = wilson(8, 10)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.4902, 0.9433)

    Raises:
        ConfigError: more successes than trials, or a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    if not 0 <= successes <= n:
        raise ConfigError(f"{successes} successes in {n} trials", fix="use 0 <= successes <= n")
    if n == 0:
        return Interval(0.0, 1.0, confidence)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding must not move an end beyond what is possible.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, high, confidence)


def bootstrap(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[[np.ndarray], float] = lambda sample: float(sample.mean()),
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a statistic (Efron 1979).

    Args:
        values: One value, or one row of values, per item.
        statistic: Maps a resample to a number; the mean unless given.
        num_resamples: How often items are drawn with replacement.
        confidence: Share of resamples inside.
        seed: Decides the resamples.

    Raises:
        ConfigError: there are no values.
    """
    _check_confidence(confidence)
    if len(values) == 0:
        raise ConfigError("there are no values to resample", fix="evaluate at least one item")
    array, generator = np.asarray(values, dtype=np.float64), np.random.default_rng(seed)
    results = [
        statistic(array[generator.integers(len(array), size=len(array))])
        for _ in range(num_resamples)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(results, [tail, 1 - tail])
    return Interval(float(low), float(high), confidence)


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence is {confidence}; it must be between 0 and 1", fix="0.95")
