"""The page around a report's sections: one file, no script, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --bg: #fbfaf8; --card: #fff; --text: #1d2129; --soft: #667085;
  --line: #e4e2dd; --accent: #7a4b1e; --series-1: #b4572b; --series-2: #2f6f8f;
  --series-3: #6b8e3d; --series-4: #8a5aa8; --good: #2e7d4f; }
@media (prefers-color-scheme: dark) { :root { --bg: #15171b; --card: #1d2026; --text: #e7e4de;
  --soft: #9aa1ad; --line: #31353d; --accent: #e0a878; --series-1: #e88a5a; --series-2: #6db4d4;
  --series-3: #a5c878; --series-4: #c39be0; --good: #7cc79a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1rem 4rem; background: var(--bg);
  color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
h1 { margin: 0 0 .2rem; font-size: 1.8rem; } h2 { margin: 0 0 .8rem; font-size: 1.15rem; }
h3 { margin: 1.2rem 0 .4rem; font-size: 1rem; }
header p { margin: .2rem 0; color: var(--soft); }
section { margin: 1.2rem 0; padding: 1.1rem 1.2rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--line); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem; }
.charts h3 { margin: 0 0 .3rem; }
.legend { margin: .2rem 0 0; color: var(--soft); font-size: .85rem; }
.legend span { margin-right: 1rem; } .legend i { display: inline-block; width: .8rem; height: .2rem;
  margin-right: .35rem; vertical-align: middle; }
pre { margin: .3rem 0; padding: .7rem; background: var(--bg); border-radius: .4rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace; }
summary { cursor: pointer; color: var(--accent); } .note { color: var(--soft); }
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem; }
.figures div { min-width: 7rem; } .figures b { display: block; font-size: 1.5rem; }
.figures span { color: var(--soft); font-size: .85rem; }
"""


def page(title: str, subtitle: Iterable[str], sections: Iterable[str]) -> str:
    """Return the complete document."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in subtitle)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{lines}</header>" + "".join(sections) + "</body></html>\n"
    )


def section(title: str, *content: str) -> str:
    """Return a card; empty text when there is no content."""
    body = "".join(content)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def html_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; empty text without rows."""
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    if not body:
        return ""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def preformatted(text: str) -> str:
    """Return text as it is, in a monospaced box."""
    return f"<pre>{escape(text)}</pre>"


def details(summary: str, content: str) -> str:
    """Return content that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>" if content else ""


def note(text: str) -> str:
    """Return a quiet remark."""
    return f'<p class="note">{escape(text)}</p>'


def figures(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a row of large numbers with their names."""
    cells = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in pairs
    )
    return f'<div class="figures">{cells}</div>' if cells else ""
