"""How long prompts and outputs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import ConfigError


class Lengths(Protocol):
    """A distribution of token counts, each at least 1."""

    def sample(self, rng: np.random.Generator, num: int) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class FixedLength:
    """Always the same."""

    num_tokens: int

    def __post_init__(self) -> None:
        _positive(self.num_tokens, "num_tokens")

    def sample(self, rng: np.random.Generator, num: int) -> NDArray[np.int64]:
        """Draw ``num`` lengths."""
        return np.full(num, self.num_tokens)


@dataclass(frozen=True)
class UniformLength:
    """Every length from ``low`` to ``high``, both included, equally often."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _positive(self.low, "low")
        if self.high < self.low:
            raise ConfigError(f"high {self.high} is below low {self.low}", fix="swap them")

    def sample(self, rng: np.random.Generator, num: int) -> NDArray[np.int64]:
        """Draw ``num`` lengths."""
        return rng.integers(self.low, self.high, size=num, endpoint=True)


@dataclass(frozen=True)
class LogNormalLength:
    """Logarithms are normal: few long ones among many short ones, as chat traffic has.

    Attributes:
        median: Half of the lengths are below.
        sigma: Standard deviation of the logarithm; chat prompts have about 1.
        high: Longer ones are cut to this.
    """

    median: float
    sigma: float
    high: int

    def __post_init__(self) -> None:
        _positive(self.high, "high")
        if self.median < 1.0 or self.sigma < 0.0:
            raise ConfigError(f"{self} has no lengths", fix="give a median >= 1 and a sigma >= 0")

    def sample(self, rng: np.random.Generator, num: int) -> NDArray[np.int64]:
        """Draw ``num`` lengths."""
        drawn = np.rint(self.median * np.exp(self.sigma * rng.standard_normal(num)))
        return np.clip(drawn, 1, self.high).astype(np.int64)


@dataclass(frozen=True)
class ZipfLength:
    """Length ``low`` + rank, where rank r has probability proportional to r ** -exponent."""

    low: int
    high: int
    exponent: float = 1.1

    def __post_init__(self) -> None:
        _positive(self.low, "low")
        if self.high < self.low:
            raise ConfigError(f"high {self.high} is below low {self.low}", fix="swap them")

    def sample(self, rng: np.random.Generator, num: int) -> NDArray[np.int64]:
        """Draw ``num`` lengths."""
        weights = zipf_weights(self.high - self.low + 1, self.exponent)
        return self.low + rng.choice(len(weights), size=num, p=weights)


@dataclass(frozen=True)
class EmpiricalLength:
    """Draws from observed lengths, with replacement."""

    observed: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.observed or min(self.observed) < 1:
            raise ConfigError("there are no lengths to draw from", fix="give lengths of at least 1")

    def sample(self, rng: np.random.Generator, num: int) -> NDArray[np.int64]:
        """Draw ``num`` lengths."""
        return rng.choice(np.array(self.observed), size=num)


def zipf_weights(num: int, exponent: float) -> NDArray[np.float64]:
    """Return probabilities proportional to rank ** -exponent; 0 makes all equal."""
    weights = np.arange(1, num + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def _positive(value: int, name: str) -> None:
    if value < 1:
        raise ConfigError(f"{name} is {value}", fix=f"{name} must be at least 1")
