"""Which steps of the quick start are done: a finished step is never repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weft.core.console import console, format_duration
from weft.core.files import read_json, write_json

Result = dict[str, Any]


class StepLedger:
    """Results and durations of finished steps in one JSON file.

    A step that is interrupted leaves what it has to its own folder (training continues from its
    checkpoint); its seconds up to there are counted when it finishes in a later session.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.steps: dict[str, Result] = read_json(self.path) if self.path.exists() else {}

    def run(self, name: str, title: str, step: Callable[[], Result | None]) -> Result:
        """Run a step, or return the result it had before."""
        entry = self.steps.setdefault(name, {"done": False, "duration_s": 0.0, "result": {}})
        if entry["done"]:
            console.print(f"[dim]✓ {title} (done before)[/dim]")
            return entry["result"]
        console.rule(f"[bold]{title}", align="left")
        start = time.monotonic()
        try:
            entry["result"] = step() or {}
            entry["done"] = True
        finally:
            # Also when interrupted: the time was spent.
            entry["duration_s"] = round(entry["duration_s"] + time.monotonic() - start, 3)
            write_json(self.path, self.steps)
        console.print(f"[dim]{title}: {format_duration(entry['duration_s'])}[/dim]\n")
        return entry["result"]

    def result(self, name: str) -> Result:
        """Return the result of a finished step."""
        return self.steps[name]["result"]

    def durations(self) -> dict[str, float]:
        """Return the seconds of every step begun so far, in order."""
        return {name: entry["duration_s"] for name, entry in self.steps.items()}
