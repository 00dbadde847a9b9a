"""Writing files so that a crash or a full disk never leaves half of one behind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weft.core.errors import InputFileError, ResourceError


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" and "read-only" into a ``ResourceError`` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = free_bytes(path)
            raise ResourceError(
                f"the disk is full: cannot write {path} ({free / 2**20:.0f} MiB free)",
                fix="free some space or choose another folder with --out; finished work is kept, "
                "run the same command again to continue",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise ResourceError(
                f"cannot write {path}: {error.strerror}", fix="choose a writable folder with --out"
            ) from error
        raise


def free_bytes(path: Path) -> int:
    """Return the free bytes of the file system that holds ``path`` or its nearest parent."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it into place.

    Raises:
        ResourceError: the disk is full or not writable; an older file is left untouched.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputFileError: the file is missing or is not JSON.
    """
    path = require_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputFileError(
            f"{path} is not valid JSON: {error}", fix="write the file again or restore a copy"
        ) from error


def require_file(path: Path, *, fix: str = "check the path") -> Path:
    """Return ``path`` if it is a file, else raise an ``InputFileError``."""
    path = Path(path)
    if path.is_dir():
        raise InputFileError(f"{str(path)!r} is a folder; a file is needed", fix=fix)
    if not path.is_file():
        raise InputFileError(f"there is no file {str(path)!r}", fix=fix)
    return path


def require_folder(path: Path, *, fix: str = "check the path") -> Path:
    """Return ``path`` if it is a folder, else raise an ``InputFileError``."""
    path = Path(path)
    if not path.is_dir():
        kind = "a file" if path.exists() else "not there"
        raise InputFileError(f"a folder is needed, but {str(path)!r} is {kind}", fix=fix)
    return path
