from __future__ import annotations

import errno
from pathlib import Path

import pytest

from weft.core.errors import InputFileError, ResourceError
from weft.data.staging import staged


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_appear_only_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staged(out, header="index") as staging:
        (staging / "index").write_text("i")
        (staging / "data").write_text("d")
        assert names(out) == [".partial"]
    assert names(out) == ["data", "index"]


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "old").write_text("x")
    with staged(tmp_path, header="index") as staging:
        assert names(staging) == []
        (staging / "index").write_text("new")
    assert names(tmp_path) == ["index"]


def test_full_disk_is_reported_and_the_old_set_stays(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("old")
    with pytest.raises(ResourceError, match="disk is full"), staged(tmp_path, header="index"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == ["index"]
    assert (tmp_path / "index").read_text() == "old"


def test_a_crash_between_renames_leaves_no_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index").write_text("old")

    def crash(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("weft.data.staging.os.replace", crash)
    with pytest.raises(KeyboardInterrupt), staged(tmp_path, header="index") as staging:
        (staging / "index").write_text("new")
    assert names(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputFileError, match="is a file"), staged(tmp_path / "out", header="i"):
        pass
