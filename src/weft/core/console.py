"""What a person sees: one console, one live line, tables; plain lines when not a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)

# Seconds between lines when the output is a file or a pipe.
PLAIN_INTERVAL_S = 10.0


class LiveLine:
    """A progress bar with a status text; a line every few seconds when not on a terminal.

    >>> with LiveLine("train", total=2) as line:  # doctest: +SKIP
    ...     line.update(1, "loss 3.2")
    """

    def __init__(self, title: str, total: float | None, *, interval_s: float | None = None) -> None:
        self.title = title
        self.total = total
        self._interval_s = PLAIN_INTERVAL_S if interval_s is None else interval_s
        self._last_print_s = float("-inf")
        self._printed = (-1.0, "")
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(title, total=total, status="")
        self._latest = (0.0, "")

    def update(self, done: float, status: str) -> None:
        """Show that ``done`` of ``total`` is finished."""
        self._latest = (done, status)
        if console.is_terminal:
            self._progress.update(self._task, completed=done, status=status)
        elif time.monotonic() - self._last_print_s >= self._interval_s:
            self._print()

    def message(self, text: str) -> None:
        """Print a line above the live one."""
        console.print(text, markup=False)

    def _print(self) -> None:
        if self._latest == self._printed:
            return
        done, status = self._latest
        share = f"{done / self.total:4.0%} " if self.total else ""
        console.print(f"{self.title}: {share}{status}", markup=False, soft_wrap=True)
        self._last_print_s = time.monotonic()
        self._printed = self._latest

    def __enter__(self) -> LiveLine:
        if console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if console.is_terminal:
            self._progress.stop()
        if self._latest[1]:
            self._print()


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: bool = True
) -> Table:
    """Build a table; print it with ``console.print``.

    ``numbers`` aligns every column but the first to the right; False aligns text to the left.
    """
    result = Table(title=title or None, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        result.add_column(column, justify="right" if index and numbers else "left")
    for row in rows:
        result.add_row(*(str(cell) for cell in row))
    return result


def format_count(value: float) -> str:
    """Return a short human count.

    >>> format_count(1_234_567), format_count(950), format_count(0.25)
    ('1.23M', '950', '0.25')
    >>> format_count(999_885_952)
    '1B'
    """
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * limit:  # three digits round up to the next unit
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def format_bytes(value: float) -> str:
    """Return bytes in binary units.

    >>> format_bytes(1536), format_bytes(3 * 2**30)
    ('1.5 KiB', '3.0 GiB')
    """
    for limit, suffix in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= limit:
            return f"{value / limit:.1f} {suffix}"
    return f"{value:.0f} B"


def format_duration(seconds: float) -> str:
    """Return seconds as a person would say them.

    >>> format_duration(75), format_duration(0.25), format_duration(4000)
    ('1m15s', '0.25s', '1h06m')
    """
    if seconds < 10:
        return f"{seconds:.2f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"


__all__ = [
    "LiveLine",
    "console",
    "error_console",
    "format_bytes",
    "format_count",
    "format_duration",
    "table",
]
