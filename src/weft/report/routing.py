"""How evenly experts were used: heat maps of loads and balance figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.report import html
from weft.report.heat_map import heat_map
from weft.report.run_view import RunView

# A cell has its whole colour at this multiple of the even load.
FULL = 2.0


def routing(run: RunView) -> str:
    """Draw every layer's loads over time, and a table of how even they were."""
    events = run.of_kind("routing")
    if not events:
        return ""
    layers = sorted(events[-1]["load"], key=int)
    maps = "".join(f"<h3>layer {layer}</h3>{_load_map(events, layer)}" for layer in layers)
    remark = html.note(
        "Rows are experts, columns reports from first to last; a colour is an expert's load, half "
        f"strength when even, full from {FULL:g} times that. Imbalance is the mean of ((load - "
        "mean) / mean) squared: 0 when even, the number of experts less one when one takes all."
    )
    return html.html_table(COLUMNS, [_figures(events, layer) for layer in layers]) + remark + maps


COLUMNS = ("layer", "imbalance at first", "at the end", "mean", "largest load / even at the end")


def _load_map(events: list[dict[str, Any]], layer: str) -> str:
    shares = [_shares(event, layer) for event in events]
    rows = [list(values) for values in zip(*shares, strict=True)]
    return heat_map(
        rows,
        row_names=[f"expert {index}" for index in range(len(rows))],
        column_names=[f"step {event['step']}" for event in events],
        full=FULL,
        label=f"load of the experts of layer {layer} over the even load",
    )


def _shares(event: Mapping[str, Any], layer: str) -> list[float]:
    """Return each expert's load as a multiple of the even one."""
    counts = event["load"][layer]
    mean = sum(counts) / len(counts) or 1.0
    return [count / mean for count in counts]


def _figures(events: list[dict[str, Any]], layer: str) -> tuple[str, ...]:
    values = [float(event["imbalance"][layer]) for event in events]
    largest = max(_shares(events[-1], layer))
    numbers = (values[0], values[-1], sum(values) / len(values))
    return (layer, *(f"{value:.4f}" for value in numbers), f"{largest:.2f}")


def comparison(summary: Mapping[str, Any]) -> str:
    """Show several trainings of one run side by side."""
    runs = summary.get("runs")
    if not isinstance(runs, Mapping):
        return ""
    names = list(dict.fromkeys(name for run in runs.values() for name in run))
    rows = [
        (name.replace("_", " "), *(_number(run.get(name)) for run in runs.values()))
        for name in names
    ]
    return html.html_table(("", *runs), rows)


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) and value < 1000 else f"{value:,.0f}"
