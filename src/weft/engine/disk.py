"""Slots of equal size in one file, for the disk tier of the KV cache."""

from __future__ import annotations

import os
import tempfile
import weakref
import zlib
from pathlib import Path

from weft.core.errors import ConfigError, ResourceError
from weft.core.files import disk_errors


class CorruptSlotError(Exception):
    """A slot does not hold what was written to it."""


class DiskSlots:
    """A file without a name, so that nothing stays behind however the process ends.

    Its space is taken at once: a disk that is too small is an error here, not a surprise later.
    Checksums (CRC-32) are kept in memory, as the file means nothing to any other process.

    Args:
        folder: Where the file is; none is the system's folder for temporary files.
        num_slots: How many slots.
        slot_bytes: Size of each.

    Raises:
        ResourceError: the disk is full or cannot be written. ConfigError: there is no such folder.
    """

    def __init__(self, folder: Path | None, num_slots: int, slot_bytes: int) -> None:
        self.folder = Path(tempfile.gettempdir() if folder is None else folder)
        if not self.folder.is_dir():
            raise ConfigError(
                f"the disk tier's folder {str(self.folder)!r} does not exist",
                fix="create it, or set engine.tiers.disk_path to one that exists",
            )
        self.slot_bytes = slot_bytes
        self._checksums: list[int | None] = [None] * num_slots
        with disk_errors(self.folder):
            self._descriptor, name = tempfile.mkstemp(dir=self.folder)
            os.unlink(name)
        self._close = weakref.finalize(self, os.close, self._descriptor)
        try:
            _reserve(self._descriptor, num_slots * slot_bytes)
        except OSError as error:
            self.close()
            raise ResourceError(
                f"the disk tier needs {num_slots * slot_bytes} bytes in {self.folder}: "
                f"{error.strerror}",
                fix="lower engine.tiers.disk_bytes, or choose another engine.tiers.disk_path",
            ) from error

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._descriptor

    def write(self, slot: int, data: memoryview) -> None:
        """Write one slot.

        Raises:
            OSError: it could not be written; the slot holds nothing then.
        """
        self._checksums[slot] = None
        offset, left = slot * self.slot_bytes, data
        while left:
            num_written = os.pwrite(self._descriptor, left, offset)
            offset, left = offset + num_written, left[num_written:]
        self._checksums[slot] = zlib.crc32(data)

    def read(self, slot: int, into: memoryview) -> None:
        """Read one slot.

        Raises:
            CorruptSlotError: it holds something else than was written. OSError: it is not readable.
        """
        offset, left = slot * self.slot_bytes, into
        while left and (num_read := os.preadv(self._descriptor, [left], offset)):
            offset, left = offset + num_read, left[num_read:]
        if left or self._checksums[slot] is None or zlib.crc32(into) != self._checksums[slot]:
            raise CorruptSlotError(f"slot {slot} of the disk tier does not hold what was written")

    def spoil(self, slot: int) -> None:
        """Let the next read of a slot fail, as what it should hold is not to be had."""
        self._checksums[slot] = None

    def close(self) -> None:
        """Give the space back."""
        self._close()


def _reserve(descriptor: int, num_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, num_bytes)
    else:  # macOS
        os.ftruncate(descriptor, num_bytes)
