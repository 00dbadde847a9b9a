"""Horizontal bars as inline SVG: what a whole is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

WIDTH, ROW, NAME, VALUE = 640, 24, 150, 110


def bar_chart(values: Mapping[str, float], show: Callable[[float], str]) -> str:
    """Draw one bar per value, labelled with ``show``; empty text without a value above 0."""
    values = {name: value for name, value in values.items() if value > 0.0}
    if not values:
        return ""
    largest = max(values.values())
    room = WIDTH - NAME - VALUE
    rows = []
    for index, (name, value) in enumerate(values.items()):
        top, middle = index * ROW + 4, index * ROW + 17
        length = round(room * value / largest, 1)
        rows.append(
            f'<text x="{NAME - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{NAME}" y="{top}" width="{length}" height="{ROW - 8}" rx="2" '
            f'fill="var(--series-2)"/>'
            f'<text x="{NAME + length + 6}" y="{middle}">{escape(show(value))}</text>'
        )
    height = len(values) * ROW + 4
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(rows)}</svg>'
