"""Heat maps as inline SVG: one cell per row and column, the accent colour by strength."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

CELL_HEIGHT, LEFT, TOP, BOTTOM, WIDTH = 18, 56, 6, 34, 640
MAX_COLUMNS = 80


def heat_map(
    rows: Sequence[Sequence[float]],
    *,
    row_names: Sequence[str],
    column_names: Sequence[str],
    full: float,
    label: str,
) -> str:
    """Draw ``rows``; a value of ``full`` or more is the whole colour, 0 none of it.

    More columns than fit are thinned evenly; every cell names its value when pointed at. Empty
    text when there is nothing to draw.
    """
    if not rows or not rows[0]:
        return ""
    kept = _kept(len(rows[0]))
    width = (WIDTH - LEFT) / len(kept)
    height = TOP + CELL_HEIGHT * len(rows) + BOTTOM
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for index, (name, values) in enumerate(zip(row_names, rows, strict=True)):
        y = TOP + index * CELL_HEIGHT
        parts.append(f'<text x="{LEFT - 6}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        for place, column in enumerate(kept):
            parts.append(
                _cell(
                    LEFT + place * width,
                    y,
                    width,
                    values[column] / full,
                    f"{name}, {column_names[column]}: {values[column]:.3g}",
                )
            )
    base = height - BOTTOM + 16
    first, last = escape(column_names[kept[0]]), escape(column_names[kept[-1]])
    parts.append(f'<text x="{LEFT}" y="{base}">{first}</text>')
    parts.append(f'<text x="{WIDTH}" y="{base}" text-anchor="end">{last}</text></svg>')
    return "".join(parts)


def _kept(num_columns: int) -> list[int]:
    """Return at most ``MAX_COLUMNS`` indices, evenly spread, first and last among them."""
    if num_columns <= MAX_COLUMNS:
        return list(range(num_columns))
    steps = MAX_COLUMNS - 1
    return [round(step * (num_columns - 1) / steps) for step in range(MAX_COLUMNS)]


def _cell(x: float, y: float, width: float, strength: float, title: str) -> str:
    opacity = min(max(strength, 0.0), 1.0)
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.2f}" height="{CELL_HEIGHT - 1}" '
        f'fill="var(--series-1)" fill-opacity="{opacity:.2f}"><title>{escape(title)}</title></rect>'
    )
