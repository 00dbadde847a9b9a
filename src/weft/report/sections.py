"""What a report shows. Each function returns HTML, or empty text when its data is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from weft.core.console import format_bytes, format_count, format_duration
from weft.report import html
from weft.report.run_view import RunView
from weft.report.svg import Series, line_chart

# Charts of a training run: title and the field of its step events; evaluations of the same field
# are drawn as a second line.
CHARTS: tuple[tuple[str, str], ...] = (
    ("Loss (nats per token)", "loss"),
    ("Bits per byte", "bits_per_byte"),
    ("Loss without smoothing (nats per token)", "nll"),
    ("BLEU", "bleu"),
    ("Reward", "reward"),
    ("Trainer against engine, largest log-prob difference", "mismatch_max_abs"),
    ("KL to the start of the run", "reference_kl"),
    ("Entropy (nats per token)", "entropy"),
    ("Tokens per second", "tokens_per_s"),
    ("Drawn tokens per second", "rollout_tokens_per_s"),
    ("Expert load imbalance, mean over layers", "imbalance"),
    ("Balancing losses", "balance_loss"),
    ("Gradient norm", "grad_norm"),
    ("Learning rate", "lr"),
)
_LINES = (("step", "training"), ("eval", "held out"))
EXACT_MATCH_STAGES = (
    ("before_sft", "before SFT"),
    ("after_sft", "after SFT"),
    ("after_grpo", "after GRPO"),
)


def charts(run: RunView) -> str:
    """Draw whatever the run's steps and evaluations measured."""
    drawn = []
    for title, field in CHARTS:
        series = [_series(name, field, run.of_kind(kind)) for kind, name in _LINES]
        chart = line_chart([s for s in series if len(s.xs)], x_label="step", y_label=title)
        if chart:
            drawn.append(f"<div><h3>{title}</h3>{chart}</div>")
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def samples(run: RunView, *, limit: int = 12) -> str:
    """Show texts the model wrote while it learnt, evenly over time."""
    events = run.of_kind("sample")
    if not events:
        return ""
    stride = max(1, len(events) // limit)
    chosen = events[::stride]
    if chosen[-1] is not events[-1]:
        chosen.append(events[-1])
    return "".join(
        f"<h3>step {event.get('step', '?')}, {format_duration(event['time_s'])}</h3>"
        + html.preformatted(str(event.get("text", "")))
        for event in chosen
    )


def headline(summary: Mapping[str, Any]) -> str:
    """Show the numbers a reader looks for first."""
    pairs = []
    if "bits_per_byte" in summary:
        pairs.append(("bits per byte, held out", f"{summary['bits_per_byte']:.3f}"))
    for key, label in EXACT_MATCH_STAGES:
        entry = summary.get("exact_match", {}).get(key)
        if entry:
            pairs.append((f"exact match {label}", f"{entry['value']:.1%}"))
    if "tokens_per_s" in summary:
        pairs.append(("training tokens/s", format_count(summary["tokens_per_s"])))
    if "num_parameters" in summary:
        pairs.append(("parameters", format_count(summary["num_parameters"])))
    return html.figures(pairs)


def before_after(summary: Mapping[str, Any]) -> str:
    """Show exact match after each stage with its 95 % interval."""
    rows = []
    for key, label in EXACT_MATCH_STAGES:
        entry = summary.get("exact_match", {}).get(key)
        if entry:
            interval = f"{entry['low']:.1%} to {entry['high']:.1%}"
            rows.append((label, f"{entry['value']:.1%}", interval, entry["n"]))
    return html.html_table(("stage", "exact match", "95 % interval", "problems"), rows)


def predicted_measured(summary: Mapping[str, Any]) -> str:
    """Show each prediction beside what was measured."""
    rows = []
    for name, entry in summary.get("predictions", {}).items():
        low, high, measured = entry["low"], entry["high"], entry.get("measured")
        show = format_bytes if entry["unit"] == "B" else _number
        verdict = ""
        if measured is not None:
            error = (entry["value"] - measured) / measured if measured else 0.0
            verdict = f"{error:+.0%}, {'inside' if low <= measured <= high else 'outside'}"
        rows.append(
            (
                f"{name} ({entry['unit']}, {entry['grade']})",
                show(entry["value"]),
                f"{show(low)} to {show(high)}",
                "" if measured is None else show(measured),
                verdict,
            )
        )
    return html.html_table(("figure", "predicted", "80 % interval", "measured", "error"), rows)


def durations(summary: Mapping[str, Any]) -> str:
    """Show how long each step took."""
    rows = [(name, format_duration(s)) for name, s in summary.get("duration_s", {}).items()]
    return html.html_table(("step", "time"), rows)


def evaluation(results: Mapping[str, Any]) -> str:
    """Show the metric rows of eval.json."""
    rows = []
    for row in results.get("eval", {}).get("results", []):
        interval = row.get("interval") or ("", "")
        rows.append(
            (
                f"{row['task']}: {row['metric']}",
                _number(row["score"]),
                " to ".join(_number(x) for x in interval if x != ""),
                row.get("n", ""),
            )
        )
    return html.html_table(("measure", "value", "95 % interval", "n"), rows)


def corpus(manifest: Mapping[str, Any]) -> str:
    """Show where the text came from and what was dropped."""
    parts = []
    for name, value in manifest.items():
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            parts.append((name.replace("_", " "), _number(value)))
    filters = manifest.get("filters", [])
    rows = [
        (f.get("name", ""), f.get("kept", ""), f.get("dropped", ""))
        for f in (filters if isinstance(filters, list) else [])
    ]
    return html.html_table(("corpus", ""), parts) + html.html_table(
        ("filter", "kept", "dropped"), rows
    )


def environment(run: RunView) -> str:
    """Show machine and versions."""
    rows: list[tuple[str, Any]] = []
    for name, value in run.environment.items():
        if isinstance(value, Mapping):
            rows.extend((key, item) for key, item in value.items())
        elif name == "memory_bytes":
            rows.append(("memory", format_bytes(value)))
        else:
            rows.append((name, " ".join(value) if isinstance(value, list) else value))
    return html.html_table(("environment", ""), rows)


def configuration(run: RunView) -> str:
    """Show config.toml, folded."""
    return html.details("config.toml", html.preformatted(run.config)) if run.config else ""


def _series(name: str, field: str, events: Iterable[Mapping[str, Any]]) -> Series:
    found = [
        (e["step"], e[field])
        for e in events
        if "step" in e and isinstance(e.get(field), int | float)
    ]
    return Series(name, [x for x, _ in found], [y for _, y in found])


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
