"""A run directory as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.core.errors import InputFileError
from weft.core.events import read_events
from weft.core.files import read_json, require_folder


@dataclass(frozen=True)
class RunView:
    """What a run left behind.

    Attributes:
        path: The folder.
        state: How it ended.
        config: The text of config.toml.
        environment: env.json.
        events: All events in order.
        results: Every other JSON file of the folder by name, such as summary or manifest.
        parts: Runs in sub-folders, by folder name, in the order they began.
    """

    path: Path
    state: str = "unknown"
    config: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, RunView] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind."""
        return [event for event in self.events if event["kind"] == kind]


def load_run(folder: Path) -> RunView:
    """Read a run directory and the runs below it.

    Raises:
        InputFileError: the folder is missing or holds no run.
    """
    folder = require_folder(folder, fix="give the folder of a run, such as runs/quickstart")
    if not (folder / "metrics.jsonl").exists():
        raise InputFileError(
            f"{folder} holds no run (it has no metrics.jsonl)",
            fix="give the folder that a weft command wrote with --out",
        )
    return _load(folder)


def _load(folder: Path) -> RunView:
    config, environment = folder / "config.toml", folder / "env.json"
    status = folder / "status.json"
    inner = sorted(
        (p.parent for p in folder.glob("*/metrics.jsonl")),
        key=lambda path: (path / "metrics.jsonl").stat().st_ctime_ns,
    )
    special = {"env", "status"}
    return RunView(
        path=folder,
        state=str(read_json(status)["state"]) if status.exists() else "unknown",
        config=config.read_text(encoding="utf-8") if config.exists() else "",
        environment=read_json(environment) if environment.exists() else {},
        events=list(read_events(folder / "metrics.jsonl")),
        results={f.stem: read_json(f) for f in folder.glob("*.json") if f.stem not in special},
        parts={path.name: _load(path) for path in inner},
    )
