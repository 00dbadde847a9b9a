"""From a word or a path to a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from weft.core.errors import InputFileError, UnsupportedError, did_you_mean
from weft.data.sources.files import TEXT_SUFFIXES, Folder, JsonLines, Parquet, TextFile
from weft.data.sources.source import Source
from weft.data.sources.stdlib import StandardLibrary

NAMED_SOURCES: dict[str, Callable[[], Source]] = {
    "stdlib": lambda: StandardLibrary("all"),
    "stdlib-code": lambda: StandardLibrary("code"),
    "stdlib-docstrings": lambda: StandardLibrary("docstrings"),
    "stdlib-topics": lambda: StandardLibrary("topics"),
}


def open_source(spec: str, *, text_key: str = "text", license: str = "unknown") -> Source:
    """Return the source a word or path stands for.

    ``stdlib``, ``stdlib-code``, ``stdlib-docstrings`` and ``stdlib-topics`` are built in; a folder
    gives its text files, a ``.jsonl`` or ``.parquet`` file its records, another text file its
    sections.

    Raises:
        InputFileError: neither a built-in source nor an existing path.
        UnsupportedError: a file of a kind that cannot be read.
    """
    if spec in NAMED_SOURCES:
        return NAMED_SOURCES[spec]()
    path = Path(spec).expanduser()
    if path.is_dir():
        return Folder(path, license=license)
    if not path.is_file():
        raise InputFileError(
            f"there is no source {spec!r}: neither a path nor a built-in source",
            fix=f"check the path; built-in: {did_you_mean(spec, NAMED_SOURCES)}",
        )
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return JsonLines(path, text_key=text_key, license=license)
    if suffix == ".parquet":
        return Parquet(path, text_key=text_key, license=license)
    if suffix in TEXT_SUFFIXES or not suffix:
        return TextFile(path, license=license)
    raise UnsupportedError(
        f"{spec} has the suffix {suffix!r}, which no reader knows",
        fix="convert it to .txt, .jsonl or .parquet",
    )
