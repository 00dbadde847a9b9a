"""Documents from the user's own files: folders, text, JSONL and Parquet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from weft.core.errors import DataError, InputFileError
from weft.core.files import require_file, require_folder
from weft.core.optional import require
from weft.data.document import Document, clean_text
from weft.data.jsonl import read_jsonl

_PROSE = (".txt", ".md", ".rst", ".adoc", ".tex", ".org", ".html", ".csv", ".xml")
_SETTINGS = (".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".sql", ".proto", ".cmake")
_CODE_C = (".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".swift", ".cs", ".java", ".kt")
_CODE = (".py", ".pyi", ".sh", ".js", ".ts", ".tsx", ".jsx", ".css", ".rb", ".php", ".pl", ".lua")
_CODE_MORE = (".jl", ".r", ".scala", ".hs", ".ml", ".ex", ".erl", ".clj", ".lisp", ".el", ".vim")
TEXT_SUFFIXES = frozenset(_PROSE + _SETTINGS + _CODE_C + _CODE + _CODE_MORE)
_SKIPPED_FOLDERS = frozenset(
    {"node_modules", "__pycache__", "venv", "site-packages", "build", "dist", "target"}
)
_SECTION_CHARS = 8192


class Folder:
    """Every text file below a folder, one document each.

    Hidden files and folders, caches, build outputs and files that are binary are left out.
    """

    def __init__(self, path: Path, *, license: str = "unknown") -> None:
        self.path, self.name, self.license = require_folder(path), f"folder:{path}", license

    def fingerprint(self) -> str:
        """Return sizes and times of all files, hashed by the manifest."""
        return "|".join(_stamp(path) for path in self._files())

    def documents(self) -> Iterator[Document]:
        """Yield files in the order of their relative paths."""
        for path in self._files():
            content = _read_bytes(path)
            if b"\0" in content[:8192]:
                continue
            name = path.relative_to(self.path).as_posix()
            text = clean_text(content.decode("utf-8", "replace"))
            yield Document(text, name, {"source": self.name, "license": self.license})

    def _files(self) -> list[Path]:
        found = []
        for parent, folders, names in os.walk(self.path):
            folders[:] = [n for n in folders if n not in _SKIPPED_FOLDERS and n[0] != "."]
            found += [
                Path(parent, name)
                for name in names
                if not name.startswith(".") and Path(name).suffix.lower() in TEXT_SUFFIXES
            ]
        return sorted(found, key=lambda path: path.relative_to(self.path).as_posix())


class TextFile:
    """One text file, cut at blank lines into sections of about 8 thousand characters.

    A single document could not be split into training and held-out text.
    """

    def __init__(self, path: Path, *, license: str = "unknown") -> None:
        self.path, self.name, self.license = require_file(path), f"file:{path}", license

    def fingerprint(self) -> str:
        """Return size and time of the file."""
        return _stamp(self.path)

    def documents(self) -> Iterator[Document]:
        """Yield the sections in order."""
        content = _read_bytes(self.path)
        if b"\0" in content[:8192]:
            raise DataError(f"{self.path} is a binary file", fix="give a text file")
        text = clean_text(content.decode("utf-8", "replace"))
        for number, section in enumerate(split_sections(text, _SECTION_CHARS)):
            meta = {"source": self.name, "license": self.license}
            yield Document(section, f"{self.path.name}#{number}", meta)


class JsonLines:
    """One document for each line of a JSONL file."""

    def __init__(self, path: Path, *, text_key: str = "text", license: str = "unknown") -> None:
        self.path, self.name, self.license = require_file(path), f"file:{path}", license
        self._text_key = text_key

    def fingerprint(self) -> str:
        """Return size and time of the file."""
        return _stamp(self.path)

    def documents(self) -> Iterator[Document]:
        """Yield the lines in order; a line's own ``id`` is kept."""
        for number, (where, record) in enumerate(read_jsonl(self.path)):
            yield _from_record(self, record, self._text_key, number, where)


class Parquet:
    """One document for each row of a Parquet file (extra: ``weft[data]``)."""

    def __init__(self, path: Path, *, text_key: str = "text", license: str = "unknown") -> None:
        self.path, self.name, self.license = require_file(path), f"file:{path}", license
        self._text_key = text_key
        self._parquet = require("pyarrow.parquet", extra="data")

    def fingerprint(self) -> str:
        """Return size and time of the file."""
        return _stamp(self.path)

    def documents(self) -> Iterator[Document]:
        """Yield the rows in order; a row's own ``id`` is kept."""
        arrow_error = require("pyarrow", extra="data").ArrowException
        try:
            with self._parquet.ParquetFile(self.path) as file:
                columns = [n for n in (self._text_key, "id") if n in file.schema_arrow.names]
                number = 0
                for batch in file.iter_batches(batch_size=256, columns=columns):
                    for row in batch.to_pylist():
                        where = f"{self.path}:row {number}"
                        yield _from_record(self, row, self._text_key, number, where)
                        number += 1
        except arrow_error as error:
            raise DataError(
                f"{self.path} cannot be read as Parquet: {error}", fix="write the file again"
            ) from error


def split_sections(text: str, num_chars: int) -> Iterator[str]:
    """Cut a text at blank lines into sections of at least ``num_chars``; they join to the text.

    >>> list(split_sections("a\\n\\nb\\n\\nc", 3))
    ['a\\n\\n', 'b\\n\\n', 'c']
    """
    start = 0
    for match in re.finditer(r"\n\s*\n", text):
        if match.end() - start >= num_chars:
            yield text[start : match.end()]
            start = match.end()
    if start < len(text):
        yield text[start:]


def _from_record(
    source: JsonLines | Parquet, record: object, text_key: str, number: int, where: str
) -> Document:
    if not isinstance(record, dict) or not isinstance(record.get(text_key), str):
        keys = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
        raise DataError(
            f"{where} has no text under {text_key!r} (it has: {keys})",
            fix="set text_key to the name of the field that holds the text",
        )
    name = record.get("id")
    name = f"{source.path.name}#{number}" if name is None else str(name)
    meta = {"source": source.name, "license": source.license}
    return Document(clean_text(record[text_key]), name, meta)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputFileError(
            f"cannot read {path}: {error.strerror}", fix="check the permissions"
        ) from error


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path}:{status.st_size}:{status.st_mtime_ns}"
