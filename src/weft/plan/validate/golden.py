"""Formula values that must come out exactly: read, computed, compared.

A row names a category and an item; the category's rule computes the value from the planner's own
functions, never from the row's expectation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weft.core.errors import DataError
from weft.plan.validate.golden_rules import RULES
from weft.plan.validate.rows import Row

Value = float | Sequence[int]
# Doubles printed in full.
_EXACT = 1e-12


@dataclass(frozen=True)
class GoldenCheck:
    """One value.

    Attributes:
        row: The line.
        value: What the planner computes.
        expected: What the row says.
        holds: Whether they agree within the row's tolerance.
    """

    row: Row
    value: Value
    expected: Value
    holds: bool


def check_golden(rows: Iterable[Row]) -> tuple[GoldenCheck, ...]:
    """Compute every row.

    Raises:
        DataError: a category or an item no rule knows; says the line.
    """
    return tuple(_check(row) for row in rows)


def _check(row: Row) -> GoldenCheck:
    rule = RULES.get(row["category"])
    if rule is None:
        raise DataError(f"line {row.line}: no rule computes {row['category']!r}")
    try:
        value = rule(row)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"line {row.line}: {row['category']!r} cannot read {row['item']!r}: {error}"
        ) from error
    if row["expected"].startswith("["):
        expected: Value = [int(text) for text in re.findall(r"-?\d+", row["expected"])]
        return GoldenCheck(row, value, expected, list(_sequence(value)) == expected)
    number = row.number("expected")
    assert isinstance(value, int | float), "rules of numbers give numbers"
    return GoldenCheck(row, value, number, _agrees(float(value), number, row["tolerance"]))


def _sequence(value: Value) -> Sequence[int]:
    return [] if isinstance(value, int | float) else value


def _agrees(value: float, expected: float, tolerance: str) -> bool:
    """Compare as the tolerance's words say."""
    rounded = re.search(r"rounded constants give ([\d.e+]+)", tolerance)
    if rounded is not None:  # the printed constants give this; the paper's own value is another
        return math.isclose(value, float(rounded[1]), rel_tol=5e-3)
    points = re.search(r"([\d.]+) pt", tolerance)
    if points is not None:
        return abs(value - expected) <= float(points[1])
    percent = re.search(r"^([\d.]+) %", tolerance)
    if percent is not None:
        return math.isclose(value, expected, rel_tol=float(percent[1]) / 100.0)
    number = re.fullmatch(r"[\d.]+", tolerance)
    if number is not None:
        return abs(value - expected) <= float(tolerance)
    span = re.match(r"([\d.]+)-([\d.]+)", tolerance)
    if span is not None:
        return float(span[1]) <= value <= float(span[2])
    if "rounds to" in tolerance:
        return math.isclose(value, expected, rel_tol=2e-4)
    if "6ND/C" in tolerance:  # the paper rounds its table
        return math.isclose(value, expected, rel_tol=5e-2)
    return math.isclose(value, expected, rel_tol=_EXACT)
