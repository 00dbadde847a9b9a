"""Writing a set of files so that readers see the old set, the new set or a clear gap."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path

from weft.core.errors import InputFileError
from weft.core.files import disk_errors


@contextlib.contextmanager
def staged(folder: Path, *, header: str) -> Generator[Path]:
    """Yield an empty folder whose files move into ``folder`` on success, ``header`` last.

    A set of files is complete when its header is there, so a crash at any moment leaves either
    the old set or no header. Other files of ``folder`` are never touched.

    Raises:
        InputFileError: ``folder`` is a file.
        ResourceError: the disk is full or not writable.
    """
    if folder.is_file():
        raise InputFileError(f"{folder} is a file; a folder is needed", fix="use another folder")
    staging = folder / ".partial"
    with disk_errors(folder):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            yield staging
            for file in staging.iterdir():
                _flush(file)
            (folder / header).unlink(missing_ok=True)
            for file in sorted(staging.iterdir(), key=lambda file: file.name == header):
                os.replace(file, folder / file.name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _flush(path: Path) -> None:
    """Force a file to the disk: a rename must not overtake the bytes it stands for."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
