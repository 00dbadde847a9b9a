"""Readers of public traces.

- *Mooncake* (Qin et al. 2025, FAST'25, arXiv:2407.00079): JSON lines with ``timestamp`` in
  milliseconds, ``input_length``, ``output_length`` and ``hash_ids``, one per block of 512 tokens;
  equal ids mean equal content up to the end of the block.
- *Azure* (Patel et al. 2024, arXiv:2311.18677): CSV with the columns ``TIMESTAMP`` (date and time),
  ``ContextTokens`` and ``GeneratedTokens``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from weft.core.errors import ConfigError
from weft.plan.workload.arrival import Arrival, TraceArrival

MOONCAKE_BLOCK_SIZE = 512
_AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BAD = (KeyError, TypeError, ValueError, ConfigError)


def read_mooncake(path: Path, *, limit: int | None = None) -> tuple[TraceArrival, ...]:
    """Read a Mooncake trace, times from its first request.

    Args:
        path: JSON lines.
        limit: Read so many requests; none means all.

    Raises:
        ConfigError: a line is no such request; it names file and line.
    """
    return tuple(islice(_json_lines(path, _mooncake_arrival), limit))


def read_azure(path: Path, *, limit: int | None = None) -> tuple[Arrival, ...]:
    """Read an Azure trace, times from its first request.

    Requests without generated tokens are counted with one, for the answer was sent.

    Raises:
        ConfigError: a line is no such request; it names file and line.
    """
    with path.open(newline="") as file:
        rows = csv.reader(file)
        header = tuple(next(rows, ()))
        if header != _AZURE_COLUMNS:
            raise ConfigError(
                f"{path}:1: the columns are {', '.join(header) or 'missing'}",
                fix=f"the first line must be {','.join(_AZURE_COLUMNS)}",
            )
        arrivals = list(islice(_azure_rows(path, rows), limit))
    return tuple(arrivals)


def stretch(arrivals: tuple[Arrival, ...], factor: float) -> tuple[Arrival, ...]:
    """Multiply all times; a factor below 1 makes the trace denser."""
    if factor <= 0.0:
        raise ConfigError(f"factor is {factor}", fix="use a factor above 0")
    return tuple(replace(arrival, time_s=arrival.time_s * factor) for arrival in arrivals)


def bad_line(path: Path, number: int, error: Exception, example: str) -> ConfigError:
    """Build the error that names a line of a trace and shows a right one."""
    reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    return ConfigError(
        f"{path}:{number}: not a request: {reason}", fix=f"a line looks like {example}"
    )


def _json_lines(
    path: Path, parse: Callable[[dict[str, Any]], TraceArrival]
) -> Iterator[TraceArrival]:
    example = '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}'
    with path.open() as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                arrival = parse(json.loads(line))
            except _BAD as error:
                raise bad_line(path, number, error, example) from error
            yield arrival


def _mooncake_arrival(record: dict[str, Any]) -> TraceArrival:
    return TraceArrival(
        time_s=record["timestamp"] / 1e3,
        num_prompt_tokens=_whole(record["input_length"]),
        num_output_tokens=max(1, _whole(record["output_length"])),
        block_hashes=tuple(_whole(name) for name in record["hash_ids"]),
        hash_block_size=MOONCAKE_BLOCK_SIZE,
    )


def _azure_rows(path: Path, rows: Iterator[list[str]]) -> Iterator[Arrival]:
    start: datetime | None = None
    for number, row in enumerate(rows, start=2):
        try:
            stamp, prompt, output = row
            time = _timestamp(stamp)
            start = start or time
            arrival = Arrival((time - start).total_seconds(), int(prompt), max(1, int(output)))
        except _BAD as error:
            example = "2023-11-16 18:17:03.9799600,4808,10"
            raise bad_line(path, number, error, example) from error
        yield arrival


def _timestamp(text: str) -> datetime:
    # The files have seven digits after the point, datetime knows six.
    whole, _, fraction = text.partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}")


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value
