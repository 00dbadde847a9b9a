"""A page section in which a person moves sliders and sees numbers change.

The program that writes the page computes every combination of slider positions beforehand; the
page looks numbers up and multiplies them as ``Derived`` says. So the page cannot compute anything
else than the program does, and needs no server.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from weft.report.html import section

Cell = float | int | str


@dataclass(frozen=True)
class Axis:
    """One slider.

    Attributes:
        name: Its label, and its name in formulas if its values are numbers.
        values: Its positions.
        start: Index of the first position.
    """

    name: str
    values: tuple[Cell, ...]
    start: int = 0


@dataclass(frozen=True)
class Column:
    """One looked-up number.

    Attributes:
        name: Its label and, outside of groups, its name in formulas.
        unit: "s", "B", "share" or any other.
        group: Columns of a group are drawn as bars of a whole; empty stands alone.
    """

    name: str
    unit: str
    group: str = ""


@dataclass(frozen=True)
class Input:
    """A number to type, such as a price."""

    name: str
    value: float


@dataclass(frozen=True)
class Derived:
    """factor · product of ``times`` / product of ``over``; names of columns, axes, inputs.

    Derived numbers may use those before them.
    """

    name: str
    unit: str
    times: tuple[str, ...]
    over: tuple[str, ...] = ()
    factor: float = 1.0


@dataclass(frozen=True)
class Limit:
    """A column that must not exceed a value."""

    column: str
    value: float
    text: str


@dataclass(frozen=True)
class Sliders:
    """Everything the section needs.

    Attributes:
        axes: The last one changes fastest in ``rows``.
        columns: Of every row.
        rows: One per combination: numbers, or why it is impossible.
        inputs: Numbers to type.
        derived: Formulas.
        limit: What must fit; none limits nothing.
    """

    axes: tuple[Axis, ...]
    columns: tuple[Column, ...]
    rows: tuple[tuple[float, ...] | str, ...]
    inputs: tuple[Input, ...] = ()
    derived: tuple[Derived, ...] = ()
    limit: Limit | None = None

    def __post_init__(self) -> None:
        alone = [column.name for column in self.columns if column.group == ""]
        named = [part.name for part in (*self.axes, *self.inputs, *self.derived)] + alone
        assert len(set(named)) == len(named), "formulas need names that tell their parts apart"
        assert len(self.rows) == math.prod(len(axis.values) for axis in self.axes)


def sliders_section(title: str, sliders: Sliders) -> str:
    """Return the section; script and data are inline."""
    static = resources.files("weft.report") / "static"
    style = (static / "sliders.css").read_text(encoding="utf-8")
    script = (static / "sliders.js").read_text(encoding="utf-8")
    plain: dict[str, Any] = asdict(sliders)
    plain["rows"] = [_short(row) for row in sliders.rows]
    # "</" inside a script element would end it.
    data = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return section(
        title,
        f"<style>{style}</style>",
        '<div id="sliders" class="sliders"><form id="controls" aria-label="Layout"></form>'
        '<div id="results" role="status" aria-live="polite"></div></div>',
        f'<script id="slider-data" type="application/json">{data}</script>'
        f"<script>{script}</script>",
    )


def _short(row: Sequence[float] | str) -> list[float] | str:
    """Seven digits are more than any prediction deserves, and a third of the size."""
    return row if isinstance(row, str) else [float(f"{value:.7g}") for value in row]
