"""Read files of published measurements: one row per line, checked by column."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weft.core.errors import DataError, InputFileError

TRAINING_COLUMNS = (
    "id", "source_group", "task", "model", "arch", "hardware", "gpus", "tp", "pp", "vpp", "cp",
    "ep", "dp", "sharding", "mbs", "gbs", "seq_len", "precision", "recompute", "framework",
    "metric", "value", "unit", "config_complete", "notes",
)  # fmt: skip
INFERENCE_COLUMNS = (
    "id", "source_group", "model", "arch", "hardware", "gpus", "tp", "pp", "dp", "ep", "mode",
    "engine", "precision", "kv_precision", "batch", "isl", "osl", "metric", "value", "unit",
    "config_complete", "notes",
)  # fmt: skip
GOLDEN_COLUMNS = (
    "id", "category", "item", "inputs", "formula", "expected", "unit", "tolerance", "source",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        line: In the file, from 2.
        values: Text by column.
    """

    line: int
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "").strip()

    @property
    def id(self) -> str:
        return self["id"]

    @property
    def source(self) -> str:
        return self["source_group"]

    @property
    def is_complete(self) -> bool:
        """Whether the whole configuration is published, so that the row counts in headlines."""
        return not self["config_complete"].startswith("partial")

    def number(self, column: str, default: float | None = None) -> float:
        """Return a column as a number.

        Raises:
            DataError: empty without a default, or no number; says line and column.
        """
        text = self[column]
        if not text and default is not None:
            return default
        try:
            return float(text)
        except ValueError as error:
            raise DataError(
                f"line {self.line}: {column} is {text!r}, which is no number"
            ) from error

    def integer(self, column: str, default: int | None = None) -> int:
        """Return a column as a whole number."""
        return int(self.number(column, default))


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Read a file of rows with at least these columns.

    Raises:
        InputFileError: no such file, no rows, or columns are missing; names them.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            found = reader.fieldnames or ()
            rows = [
                Row(number, {key: value or "" for key, value in record.items() if key})
                for number, record in enumerate(reader, start=2)
            ]
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"{path} cannot be read: {error}") from error
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputFileError(
            f"{path} has no column {', '.join(missing)}",
            fix=f"the columns are {', '.join(columns)}",
        )
    if not rows:
        raise InputFileError(f"{path} has no rows")
    return rows
