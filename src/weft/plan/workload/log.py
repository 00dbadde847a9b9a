"""Weft's own request log: JSON lines, one per answered request, read back as a workload.

The fields are those of ``RequestRecord``. A server's log and a simulation's log have the same
form, so that one can be compared with the other line by line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from weft.core.errors import ConfigError
from weft.plan.workload.arrival import TraceArrival
from weft.plan.workload.traces import bad_line

_EXAMPLE = '{"arrival_s": 0.5, "num_prompt_tokens": 812, "num_output_tokens": 64}'


@dataclass(frozen=True)
class RequestRecord:
    """One answered request; times in seconds on one clock.

    Attributes:
        arrival_s: When it arrived.
        num_prompt_tokens: Length of its prompt.
        num_output_tokens: Tokens it got.
        first_token_s: When its first token was there; none if that was not recorded.
        finish_s: When its last token was there.
        num_cached_tokens: Prompt tokens found in the prefix cache.
        block_hashes: Names of the prompt's blocks, to share prefixes in a replay.
        hash_block_size: Tokens per block.
    """

    arrival_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    first_token_s: float | None = None
    finish_s: float | None = None
    num_cached_tokens: int = 0
    block_hashes: tuple[int, ...] = ()
    hash_block_size: int = 512

    def arrival(self, start_s: float) -> TraceArrival:
        """Return the request as it arrived, ``start_s`` being time 0."""
        return TraceArrival(
            self.arrival_s - start_s,
            self.num_prompt_tokens,
            self.num_output_tokens,
            block_hashes=self.block_hashes,
            hash_block_size=self.hash_block_size,
        )


def write_log(path: Path, records: Iterable[RequestRecord]) -> None:
    """Write one line per request."""
    with path.open("w") as file:
        for record in records:
            file.write(json.dumps(asdict(record)) + "\n")


def read_log(path: Path) -> tuple[RequestRecord, ...]:
    """Read a log.

    Raises:
        ConfigError: a line is no record; it names file and line.
    """
    records = []
    with path.open() as file:
        for number, line in enumerate(file, start=1):
            try:
                records.append(_record(json.loads(line)))
            except (TypeError, ValueError, AttributeError, ConfigError) as error:
                raise bad_line(path, number, error, _EXAMPLE) from error
    return tuple(records)


def log_arrivals(records: Iterable[RequestRecord]) -> tuple[TraceArrival, ...]:
    """Return the recorded requests as a workload that starts at time 0."""
    records = sorted(records, key=lambda record: record.arrival_s)
    return tuple(record.arrival(records[0].arrival_s) for record in records)


def _record(values: dict[str, object]) -> RequestRecord:
    unknown = values.keys() - {field.name for field in fields(RequestRecord)}
    if unknown:
        raise ValueError(f"unknown field {min(unknown)!r}")
    values = dict(values)
    if isinstance(values.get("block_hashes"), list):
        values["block_hashes"] = tuple(values["block_hashes"])  # type: ignore[arg-type]
    record = RequestRecord(**values)  # type: ignore[arg-type]
    record.arrival(record.arrival_s)  # refuses impossible lengths
    return record
