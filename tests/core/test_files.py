from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from weft.core.errors import InputFileError, ResourceError
from weft.core.files import (
    disk_errors,
    read_json,
    require_file,
    require_folder,
    write_atomic,
    write_json,
)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    write_atomic(target, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_other_disk_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd"), disk_errors(tmp_path):
        raise OSError(errno.EIO, "odd")


def test_a_read_only_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot write"), disk_errors(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system")


def test_json_round_trip_and_errors(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5, None]}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputFileError, match="not valid JSON"):
        read_json(tmp_path / "b.json")


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no file"):
        require_file(tmp_path / "x")
    with pytest.raises(InputFileError, match="is a folder"):
        require_file(tmp_path)
    with pytest.raises(InputFileError, match="not there"):
        require_folder(tmp_path / "x")
