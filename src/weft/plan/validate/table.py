"""Errors by source: the table that says how far predictions can be trusted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from weft.plan.figure import Figure

_NUM_WORST = 5


@dataclass(frozen=True)
class Comparison:
    """One prediction beside its measurement.

    Attributes:
        id: Of the row.
        source: Group of rows that were measured together.
        quantity: What is compared, such as "training throughput".
        predicted: With its 80 % interval.
        measured: In the same unit.
        complete: The whole configuration is known, so the row counts in the headline.
        explanation: Where the prediction's time or memory goes.
    """

    id: str
    source: str
    quantity: str
    predicted: Figure
    measured: float
    complete: bool = True
    explanation: str = ""

    @property
    def error(self) -> float:
        """Relative to the measurement; positive is predicted too large."""
        return self.predicted.error(self.measured)

    @property
    def covered(self) -> bool:
        """The measurement lies in the interval."""
        return self.predicted.contains(self.measured)


@dataclass(frozen=True)
class ErrorLine:
    """Errors of one quantity and source, or of all sources together.

    Attributes:
        quantity: What is compared.
        source: Group of rows; "all" is the headline.
        num_rows: How many.
        median: Of absolute relative errors.
        p90: Their 90th percentile.
        bias: Median of signed relative errors.
        coverage: Share of measurements inside the 80 % interval.
    """

    quantity: str
    source: str
    num_rows: int
    median: float
    p90: float
    bias: float
    coverage: float


@dataclass(frozen=True)
class ErrorTable:
    """How wrong predictions are.

    Attributes:
        lines: By quantity and source, complete rows only; the headline of a quantity first.
        partial: The same for rows whose configuration is not fully published.
        worst: The rows that are furthest off, worst first.
    """

    lines: tuple[ErrorLine, ...]
    partial: tuple[ErrorLine, ...]
    worst: tuple[Comparison, ...]

    def headline(self, quantity: str) -> ErrorLine:
        """Return the line over all sources."""
        return next(
            line for line in self.lines if (line.quantity, line.source) == (quantity, "all")
        )

    def macro(self, quantity: str) -> float:
        """Return the mean of the sources' medians."""
        medians = [
            line.median for line in self.lines if line.quantity == quantity and line.source != "all"
        ]
        return float(np.mean(medians))

    def text(self) -> str:
        """Return the table in fixed-width text."""
        names = f"{'quantity':<24}{'source':<24}{'rows':>5}"
        head = names + f"{'median':>9}{'p90':>9}{'bias':>9}{'in 80%':>8}"
        lines = [head, *(_text(line) for line in self.lines)]
        if self.partial:
            lines += ["configuration partly known:", *(_text(line) for line in self.partial)]
        if self.worst:
            lines.append("furthest off:")
            lines += [
                f"  {item.id:<8}{item.source:<24}{100 * item.error:>+8.1f} %  {item.explanation}"
                for item in self.worst
            ]
        return "\n".join(lines)


def error_table(comparisons: Iterable[Comparison], *, num_worst: int = _NUM_WORST) -> ErrorTable:
    """Collect comparisons into a table."""
    items = tuple(comparisons)
    complete = [item for item in items if item.complete]
    worst = sorted(complete, key=lambda item: -abs(item.error))[:num_worst]
    partial = [item for item in items if not item.complete]
    return ErrorTable(tuple(_lines(complete)), tuple(_lines(partial)), tuple(worst))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the rank correlation of two sequences, ties sharing their mean rank."""
    ranks = [_ranks(np.asarray(values, float)) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def regret(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Return how much slower the predicted best is than the measured best; times, less is better.

    >>> regret([1.0, 2.0], [11.0, 10.0])
    0.1
    """
    chosen = measured[int(np.argmin(predicted))]
    return round(chosen / min(measured) - 1.0, 12)


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def _lines(items: Sequence[Comparison]) -> list[ErrorLine]:
    groups: dict[str, dict[str, list[Comparison]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        groups[item.quantity]["all"].append(item)
        groups[item.quantity][item.source].append(item)
    return [
        _line(quantity, source, members)
        for quantity, sources in groups.items()
        for source, members in sources.items()
    ]


def _line(quantity: str, source: str, items: Sequence[Comparison]) -> ErrorLine:
    errors = np.array([item.error for item in items])
    size = np.abs(errors)
    return ErrorLine(
        quantity=quantity,
        source=source,
        num_rows=len(items),
        median=float(np.median(size)),
        p90=float(np.quantile(size, 0.9)),
        bias=float(np.median(errors)),
        coverage=float(np.mean([item.covered for item in items])),
    )


def _text(line: ErrorLine) -> str:
    shares = (line.median, line.p90, line.bias)
    numbers = "".join(f"{100 * share:>7.1f} %" for share in shares)
    return (
        f"{line.quantity:<24}{line.source:<24}{line.num_rows:>5}{numbers}"
        f"{100 * line.coverage:>6.0f} %"
    )
