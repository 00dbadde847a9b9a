"""The running Python's standard library: about 12 MB of code and prose on every machine.

Tests, vendored packages and files generated at installation are left out. The texts are under
the licence of Python itself.
"""

from __future__ import annotations

import importlib
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from weft.core.errors import DataError
from weft.data.document import Document, clean_text
from weft.data.sources.docstrings import iter_docstrings

Part = Literal["all", "code", "docstrings", "topics"]

_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    | {"lib-dynload", "_bundled", "__phello__"}
)
_SKIPPED_PREFIXES = ("_sysconfigdata", "_sysconfig_vars", "config-")


class StandardLibrary:
    """Documents of the standard library.

    Args:
        part: ``"code"``: each ``.py`` file. ``"docstrings"``: the docstrings of each file.
            ``"topics"``: the articles of the language reference that ``help()`` shows.
            ``"all"``: code and topics.

    Raises:
        DataError: this Python comes without its source files.
    """

    license = "PSF-2.0"

    def __init__(self, part: Part = "all") -> None:
        self.name = "stdlib" if part == "all" else f"stdlib-{part}"
        self._part = part
        self._root = Path(sysconfig.get_path("stdlib"))
        self._files = sorted(find_modules(self._root), key=lambda path: path.as_posix())
        if not self._files:
            raise DataError(
                f"the standard library of this Python has no source files in {self._root}",
                fix="use another source: a folder, .txt, .jsonl or .parquet file",
            )

    def fingerprint(self) -> str:
        """Return the Python version with the number and size of the files."""
        num_bytes = sum((self._root / path).stat().st_size for path in self._files)
        return f"python-{platform.python_version()}-{len(self._files)}-{num_bytes}"

    def documents(self) -> Iterator[Document]:
        """Yield files in the order of their names, then topics in the order of theirs."""
        if self._part in ("all", "code"):
            for path in self._files:
                yield self._document(f"stdlib/{path.as_posix()}", self._read(path), "code")
        if self._part == "docstrings":
            for path in self._files:
                text = _prose(self._read(path), module_name(path))
                if text:
                    yield self._document(f"stdlib-docstrings/{path.as_posix()}", text, "prose")
        if self._part in ("all", "topics"):
            for topic, text in sorted(_topics().items()):
                yield self._document(f"stdlib-topics/{topic}", clean_text(text), "prose")

    def modules(self) -> Iterator[tuple[str, str]]:
        """Yield ``(dotted module name, source text)`` of each file."""
        for path in self._files:
            yield module_name(path), self._read(path)

    def _read(self, path: Path) -> str:
        return clean_text((self._root / path).read_bytes().decode("utf-8", "replace"))

    def _document(self, name: str, text: str, kind: str) -> Document:
        return Document(text, name, {"source": self.name, "license": self.license, "kind": kind})


def find_modules(root: Path) -> Iterator[Path]:
    """Yield the ``.py`` files below ``root``, relative to it, without tests and caches."""
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        skipped = _SKIPPED_FOLDERS.intersection(relative.parts[:-1])
        generated = any(part.startswith(_SKIPPED_PREFIXES) for part in relative.parts)
        # The reference texts are their own source; as code they are one long literal.
        if not skipped and not generated and relative.parts[0] != "pydoc_data":
            yield relative


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the library.

    >>> module_name(Path("xml/dom/__init__.py"))
    'xml.dom'
    """
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _prose(source: str, module: str) -> str:
    """Join the docstrings of a file under the names of their objects."""
    entries = [
        f"{entry.name}{entry.signature}\n\n{entry.text}"
        for entry in iter_docstrings(source, module)
    ]
    return "\n\n\n".join(entries) + "\n" if entries else ""


def _topics() -> dict[str, str]:
    try:
        return dict(importlib.import_module("pydoc_data.topics").topics)
    except ImportError:
        # Some distributions ship the reference separately; the code alone is still a corpus.
        return {}
