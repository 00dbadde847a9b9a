"""Metric events: one local ``metrics.jsonl`` is the truth, every other sink reads the same.

An event is a flat mapping with a ``kind`` (``step``, ``sample``, ``eval``, ``note`` ...), the
seconds since the run began and whatever numbers belong to it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from weft.core.errors import DataError
from weft.core.files import disk_errors
from weft.core.optional import require


class Sink(Protocol):
    """Something that takes events."""

    def write(self, event: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonlSink:
    """Appends one JSON object a line; opened for append, so a continued run keeps its past."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, event: Mapping[str, Any]) -> None:
        with disk_errors(self.path):
            self._file.write(json.dumps(_finite(event), ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class TensorBoardSink:
    """Writes numeric fields of events that carry a ``step`` (extra: ``weft[tensorboard]``)."""

    def __init__(self, folder: Path) -> None:
        module = require("torch.utils.tensorboard", extra="tensorboard")
        self._writer = module.SummaryWriter(str(folder))

    def write(self, event: Mapping[str, Any]) -> None:
        step = event.get("step")
        for name, value in event.items():
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            if step is not None and numeric and name not in ("step", "time_s"):
                self._writer.add_scalar(f"{event['kind']}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class Events:
    """Fans events out to sinks and stamps them with seconds since the start."""

    def __init__(
        self, *sinks: Sink, clock: Callable[[], float] = time.monotonic, offset_s: float = 0.0
    ) -> None:
        self._sinks = list(sinks)
        self._clock = clock
        self._start = clock() - offset_s

    def emit(self, kind: str, **values: Any) -> dict[str, Any]:
        """Send one event to every sink and return it."""
        event = {"kind": kind, "time_s": round(self._clock() - self._start, 4), **values}
        for sink in self._sinks:
            sink.write(event)
        return event

    def add(self, sink: Sink) -> None:
        """Send all further events to ``sink`` too."""
        self._sinks.append(sink)

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_events(path: Path, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the events of a ``metrics.jsonl``; a half-written last line is left out.

    Raises:
        DataError: a line other than the last is not JSON.
    """
    path = Path(path)
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").split("\n")
    last = len(lines) - 1
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except json.JSONDecodeError as error:
            if number >= last:
                return
            raise DataError(
                f"{path}:{number + 1} is not JSON", fix="delete that line; the rest is usable"
            ) from error
        if kind is None or event.get("kind") == kind:
            yield event


def _finite(event: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN or infinity: they are written as text, so that no number is lost."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in event.items()
    }
