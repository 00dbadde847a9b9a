"""Line charts as inline SVG. Colours are the page's CSS variables, so dark mode just works."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("var(--series-1)", "var(--series-2)", "var(--series-3)", "var(--series-4)")
WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 36
MAX_POINTS = 600


@dataclass(frozen=True)
class Series:
    """One line: equally many x and y; points whose y is not finite are left out."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]

    @property
    def points(self) -> list[tuple[float, float]]:
        """Finite points, thinned to what a chart can show; first and last are kept."""
        points = [
            (float(x), float(y))
            for x, y in zip(self.xs, self.ys, strict=True)
            if isinstance(y, int | float) and math.isfinite(y)
        ]
        stride = max(1, math.ceil(len(points) / MAX_POINTS))
        thin = points[::stride]
        return thin if not points or thin[-1] == points[-1] else [*thin, points[-1]]


def line_chart(series: Sequence[Series], *, x_label: str, y_label: str) -> str:
    """Draw lines over common axes; empty text when there is nothing to draw."""
    lines = [(s.name, s.points) for s in series]
    lines = [(name, points) for name, points in lines if points]
    if not lines:
        return ""
    xs = [x for _, points in lines for x, _ in points]
    ys = [y for _, points in lines for _, y in points]
    x_ticks, y_ticks = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    x_scale = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_scale = _scale(min([*ys, y_ticks[0]]), max([*ys, y_ticks[-1]]), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(y_label)} over {escape(x_label)}">'
    ]
    for tick in y_ticks:
        y = y_scale(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_label(tick)}</text>')
    for tick in x_ticks:
        if min(xs) <= tick <= max(xs):
            x = x_scale(tick)
            y = HEIGHT - BOTTOM + 16
            parts.append(f'<text x="{x}" y="{y}" text-anchor="middle">{_label(tick)}</text>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>'
    )
    for (_, points), colour in zip(lines, COLOURS, strict=False):
        path = " ".join(f"{x_scale(x)},{y_scale(y)}" for x, y in points)
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{path}"/>'
        )
        if len(points) == 1:
            x, y = points[0]
            parts.append(f'<circle cx="{x_scale(x)}" cy="{y_scale(y)}" r="3" fill="{colour}"/>')
    parts.append("</svg>")
    return "".join(parts) + _legend([name for name, _ in lines])


def nice_ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Return round numbers that cover [low, high].

    >>> nice_ticks(0.0, 9.3)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: round(start + (value - low) / span * (end - start), 1)


def _label(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    items = "".join(
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in zip(names, COLOURS, strict=False)
    )
    return f'<p class="legend">{items}</p>'
