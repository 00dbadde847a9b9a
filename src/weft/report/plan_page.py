"""An answer of the planner as one self-contained page."""

from __future__ import annotations

from functools import partial

from weft.plan.answer import Answer, Item, Parts, Plot, show
from weft.report.bars import bar_chart
from weft.report.html import details, html_table, note, page, preformatted, section
from weft.report.svg import Series, line_chart


def plan_page(answer: Answer, *extra: str) -> str:
    """Return the page of an answer; ``extra`` are further sections of HTML."""
    sections = [
        section("Figures", _figures(answer.items)),
        *extra,
        *(section(part.title, _bars(part)) for part in answer.parts),
        *(section(plot.title, _lines(plot)) for plot in answer.plots),
        *(section(one.title, html_table(one.columns, one.rows)) for one in answer.listings),
        section("Notes", *(note(text) for text in answer.notes)),
        section("Run it", preformatted(answer.command) if answer.command else ""),
    ]
    return page(answer.title, answer.facts, sections)


def _figures(items: tuple[Item, ...]) -> str:
    rows = [(item.name, item.text, item.interval, item.grade) for item in items]
    formulas = [(item.name, item.formula) for item in items if item.formula]
    table = html_table(("figure", "value", "80 % interval", "grade"), rows)
    return table + details("Formulas", html_table(("figure", "formula"), formulas))


def _bars(parts: Parts) -> str:
    return bar_chart(parts.values, partial(show, unit=parts.unit))


def _lines(plot: Plot) -> str:
    series = [Series(curve.name, curve.xs, curve.ys) for curve in plot.curves]
    return line_chart(series, x_label=plot.x_label, y_label=plot.y_label)
