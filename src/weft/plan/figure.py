"""A predicted number, how sure we are, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from weft.spec.hardware import Grade


@dataclass(frozen=True)
class Figure:
    """A number with an 80 % interval.

    Attributes:
        value: The best guess.
        low: Lower end of the interval.
        high: Upper end of the interval.
        unit: Such as "s" or "tok/s".
        grade: From a data sheet ("spec"), from fitted constants ("fit") or "measured".
    """

    value: float
    low: float
    high: float
    unit: str
    grade: Grade

    @classmethod
    def within(cls, value: float, factor: float, unit: str, grade: Grade) -> Figure:
        """Return a figure whose interval is value / factor to value * factor.

        >>> Figure.within(100.0, 1.25, "tok/s", "fit").low
        80.0
        """
        return cls(value, value / factor, value * factor, unit, grade)

    def contains(self, measured: float) -> bool:
        """Whether a measurement lies in the interval."""
        return self.low <= measured <= self.high

    def error(self, measured: float) -> float:
        """Return (predicted - measured) / measured."""
        return (self.value - measured) / measured
