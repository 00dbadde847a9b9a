"""What the planner answers: figures with grade, interval and formula, tables and curves.

Every verb of ``weft plan`` makes one ``Answer``; text, JSON and the HTML page are three ways to
read it, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weft.core.console import format_bytes, format_count, format_duration
from weft.plan.figure import Figure
from weft.spec.hardware import Grade

Value = float | int | str


@dataclass(frozen=True)
class Item:
    """One number with its name.

    Attributes:
        name: What it is.
        value: In SI units, or text.
        unit: "s", "B", "B/s", "FLOP/s", "share" or any other; decides how it is printed.
        grade: Where it comes from: "spec", "fit" or "measured".
        formula: How it was computed, for ``--explain``.
        low: Lower end of the 80 % interval, where there is one.
        high: Upper end.
    """

    name: str
    value: Value
    unit: str = ""
    grade: Grade = "spec"
    formula: str = ""
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, name: str, figure: Figure, formula: str = "") -> Item:
        """Return a figure with a name."""
        return cls(name, figure.value, figure.unit, figure.grade, formula, figure.low, figure.high)

    @property
    def text(self) -> str:
        """The value as a person reads it."""
        return show(self.value, self.unit)

    @property
    def interval(self) -> str:
        """The interval as a person reads it; empty if there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"[{show(self.low, self.unit)}, {show(self.high, self.unit)}]"


@dataclass(frozen=True)
class Listing:
    """A table.

    Attributes:
        title: Above it.
        columns: Names.
        rows: Cells as people read them.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Curve:
    """One line of a plot."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]


@dataclass(frozen=True)
class Plot:
    """Lines over common axes.

    Attributes:
        title: Above it.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        curves: At most four are told apart by colour.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Parts:
    """What a whole is made of, as bars.

    Attributes:
        title: Above them.
        unit: Of the values.
        values: By name.
    """

    title: str
    unit: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    """Everything one question gives.

    Attributes:
        title: What was asked about.
        facts: One line each, below the title.
        items: Numbers.
        parts: Wholes and what they are made of.
        listings: Tables.
        plots: Curves.
        notes: Remarks, such as a fix.
        command: What to run next, if anything.
        data: Further plain data for programs.
    """

    title: str
    facts: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    parts: tuple[Parts, ...] = ()
    listings: tuple[Listing, ...] = ()
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: figures by name, the rest as it is."""
        figures = {
            item.name: {
                "value": item.value,
                "unit": item.unit,
                "grade": item.grade,
                **({} if item.low is None else {"interval_80": [item.low, item.high]}),
                **({"formula": item.formula} if item.formula else {}),
            }
            for item in self.items
        }
        return {
            "title": self.title,
            "facts": list(self.facts),
            "figures": figures,
            "parts": {part.title: dict(part.values) for part in self.parts},
            "tables": {
                one.title: [dict(zip(one.columns, row, strict=True)) for row in one.rows]
                for one in self.listings
            },
            "notes": list(self.notes),
            **({"command": self.command} if self.command else {}),
            **self.data,
        }


def listing(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Listing:
    """Return a table of whatever prints."""
    return Listing(title, tuple(columns), tuple(tuple(str(c) for c in row) for row in rows))


def show(value: Value, unit: str = "") -> str:
    """Return a number as a person reads it.

    >>> show(0.0123, "s"), show(3 * 2**30, "B"), show(0.4043, "share"), show(4.5e11, "B/s")
    ('12.3 ms', '3.0 GiB', '40.4 %', '450 GB/s')
    """
    if isinstance(value, str):
        return value
    if unit == "s":
        return seconds(value)
    if unit == "B":
        return format_bytes(value)
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit in ("B/s", "FLOP/s", "FLOP"):
        return scaled(value, unit)
    if isinstance(value, int) and abs(value) < 1e6:
        return f"{value:,} {unit}".rstrip()
    return f"{format_count(value)} {unit}".rstrip()


def seconds(value: float) -> str:
    """Return a time with a unit that fits.

    >>> seconds(2.5e-6), seconds(0.5), seconds(13.94), seconds(400_000)
    ('2.5 us', '500 ms', '13.9 s', '4.63 days')
    """
    if value >= 2 * 86_400:
        return f"{value / 86_400:.3g} days"
    if value >= 60:
        return format_duration(value)
    for limit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= limit:
            return f"{value / limit:.3g} {name}"
    return f"{value * 1e9:.3g} ns"


def scaled(value: float, unit: str) -> str:
    """Return a rate with a decimal prefix.

    >>> scaled(989.4e12, "FLOP/s")
    '989 TFLOP/s'
    """
    for limit, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
