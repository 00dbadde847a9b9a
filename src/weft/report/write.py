"""Run directory in, ``report.html`` and ``report.md`` out."""

from __future__ import annotations

from pathlib import Path

from weft.core.console import format_duration
from weft.core.files import read_json, write_atomic
from weft.report import html, sections
from weft.report.routing import comparison, routing
from weft.report.run_view import RunView, load_run

TINY_MODEL_NOTE = (
    "A model this small writes documentation-shaped nonsense. What the run shows is that every "
    "stage works and by how much each one helps."
)


def write_report(folder: Path) -> Path:
    """Write both reports into a run directory and return the path of the HTML one.

    Raises:
        InputFileError: the folder holds no run. ResourceError: the disk is full.
    """
    run = load_run(folder)
    path = run.path / "report.html"
    write_atomic(path, render_html(run))
    write_atomic(run.path / "report.md", render_markdown(run))
    return path


def render_html(run: RunView) -> str:
    """Return the report of a run as one self-contained page."""
    summary = run.results.get("summary", {})
    corpus = run.path / "corpus" / "manifest.json"
    parts = [html.section("Result", sections.headline(summary), _tiny_note(run))]
    parts.append(html.section("Side by side", comparison(summary)))
    parts.append(html.section("Before and after", sections.before_after(summary)))
    parts.append(html.section("Predicted and measured", sections.predicted_measured(summary)))
    parts.append(html.section("Evaluation", sections.evaluation(run.results)))
    for name, part in {"": run, **run.parts}.items():
        title = name or "Curves"
        parts.append(html.section(title, sections.charts(part)))
        parts.append(html.section(f"{title}: use of experts", routing(part)))
        parts.append(html.section(f"{title}: samples over time", sections.samples(part)))
    if corpus.exists():
        parts.append(html.section("Corpus", sections.corpus(read_json(corpus))))
    parts.append(html.section("Time", sections.durations(summary)))
    inner = "".join(
        html.details(f"{name}/config.toml", html.preformatted(part.config))
        for name, part in run.parts.items()
        if part.config
    )
    parts.append(html.section("Configuration", sections.configuration(run), inner))
    parts.append(html.section("Environment", sections.environment(run)))
    return html.page(f"weft run: {run.path.resolve().name}", _subtitle(run), parts)


def render_markdown(run: RunView) -> str:
    """Return the numbers of a report as Markdown, for issues and logs."""
    lines = [f"# weft run: {run.path.resolve().name}", "", *_subtitle(run), ""]
    summary = run.results.get("summary", {})
    if "bits_per_byte" in summary:
        lines.append(f"- bits per byte, held out: {summary['bits_per_byte']:.3f}")
    for key, label in sections.EXACT_MATCH_STAGES:
        entry = summary.get("exact_match", {}).get(key)
        if entry:
            lines.append(
                f"- exact match {label}: {entry['value']:.1%} "
                f"({entry['low']:.1%} to {entry['high']:.1%}, n = {entry['n']})"
            )
    for name, part in {"run": run, **run.parts}.items():
        steps = part.of_kind("step")
        if steps:
            last = {k: v for k, v in steps[-1].items() if isinstance(v, int | float)}
            numbers = ", ".join(f"{key} {value:g}" for key, value in last.items())
            lines.append(f"- {name}, last step: {numbers}")
    return "\n".join(lines) + "\n"


def _subtitle(run: RunView) -> list[str]:
    times = [e["time_s"] for e in run.events]
    machine = run.environment.get("cpu", "unknown machine")
    cores = run.environment.get("num_cpus", "?")
    return [
        f"State: {run.state}. Recorded for {format_duration(max(times, default=0.0))}.",
        f"{machine}, {cores} cores, weft {run.environment.get('weft', '?')}.",
    ]


def _tiny_note(run: RunView) -> str:
    num_parameters = run.results.get("summary", {}).get("num_parameters", float("inf"))
    return html.note(TINY_MODEL_NOTE) if num_parameters < 100e6 else ""
