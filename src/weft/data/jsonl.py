"""JSON Lines in and out, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weft.core.errors import DataError, InputFileError
from weft.core.files import require_file


def read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(where, value)`` for each line that is not blank; ``where`` is ``file:line``.

    Raises:
        InputFileError: the file is missing or unreadable.
        DataError: a line is not JSON or not UTF-8.
    """
    path = require_file(path)
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            yield where, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where} is not UTF-8: {error.reason} at byte {error.start}",
                fix="convert the file to UTF-8 or delete that line",
            ) from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(
                f"{where} is not JSON: {error}", fix="correct or delete that line"
            ) from error


def to_line(value: Any) -> str:
    """Render one value as a line, without spaces that depend on a version."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise InputFileError(
            f"cannot read {path}: {error.strerror}", fix="check the permissions"
        ) from error
