"""An answer on the terminal: text or JSON, and a page in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator

from weft.cli.plan.options import Output
from weft.core.console import console
from weft.core.files import write_atomic
from weft.plan.answer import Answer, Listing, Parts, show

_BAR = 28
_SIGNED = tuple(f"{sign}{digit}" for sign in "+-" for digit in range(10))


def emit(answer: Answer, output: Output, *sections: str) -> None:
    """Print an answer as asked and write its page if one is wanted.

    Args:
        answer: What to print.
        output: How.
        sections: Further HTML for the page.
    """
    if output.json:
        text = json.dumps(answer.to_dict(), indent=2, ensure_ascii=False)
        console.print(text, markup=False, soft_wrap=True)
    else:
        for line in lines(answer, explain=output.explain):
            console.print(line, markup=False, soft_wrap=True)
        for one in answer.listings:
            console.print("\n".join(table_lines(one)), markup=False, soft_wrap=True)
        for note in answer.notes:
            console.print(note, markup=False, soft_wrap=True)
        if answer.command:
            console.print(f"run it: {answer.command}", markup=False, soft_wrap=True)
    if output.html is not None:
        from weft.report.plan_page import plan_page

        write_atomic(output.html, plan_page(answer, *sections))
        if not output.json:
            console.print(f"wrote {output.html}", markup=False, soft_wrap=True)


def lines(answer: Answer, *, explain: bool) -> Iterator[str]:
    """Return title, facts, figures and parts as lines of text."""
    yield answer.title
    yield from (f"  {fact}" for fact in answer.facts)
    width = max((len(item.name) for item in answer.items), default=0)
    for item in answer.items:
        interval = f"  {item.interval}" if item.interval else ""
        yield f"  {item.name:<{width}}  {item.text:>12}{interval}  ({item.grade})"
        if explain and item.formula:
            yield f"  {'':<{width}}    = {item.formula}"
    for part in answer.parts:
        yield f"  {part.title}"
        yield from _bars(part)


def table_lines(one: Listing) -> Iterator[str]:
    """Return a table as aligned columns; those that hold numbers to the right."""
    columns = list(zip(one.columns, *one.rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    left = [not any(cell[:1].isdigit() or cell[:2] in _SIGNED for cell in column[1:])
            for column in columns]  # fmt: skip
    yield one.title
    for row in (one.columns, *one.rows):
        cells = (
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, left, strict=True)
        )
        yield "  " + "  ".join(cells).rstrip()


def _bars(part: Parts) -> Iterator[str]:
    values = {name: value for name, value in part.values.items() if value > 0.0}
    width = max(map(len, values), default=0)
    total = sum(values.values())
    for name, value in values.items():
        bar = "#" * round(_BAR * value / total)
        text = show(value, part.unit)
        yield f"    {name:<{width}}  {text:>10}  {100 * value / total:5.1f} %  {bar}"
