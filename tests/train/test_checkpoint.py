from __future__ import annotations

import errno
import json
import random
import threading
from pathlib import Path

import pytest
import torch

from weft.core.errors import CheckpointError, ResourceError
from weft.train import checkpoint as checkpoints
from weft.train.checkpoint import CheckpointStore, load_checkpoint
from weft.train.rng import capture_random_state, preserved_random_state, restore_random_state


def _tensors(value: float = 1.0) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((8, 8), value)}, "optimizer": {"w/step": torch.tensor(3.0)}}


def _saved(folder: Path, steps: list[int], **options: int) -> CheckpointStore:
    with CheckpointStore(folder, **options) as store:
        for step in steps:
            store.save(step, _tensors(step), {"note": f"at {step}"})
    return store


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    loaded = _saved(tmp_path, [7]).load_latest()
    assert loaded is not None
    assert (loaded.step, loaded.state) == (7, {"note": "at 7"})
    assert torch.equal(loaded.tensors["model"]["w"], torch.full((8, 8), 7.0))
    assert loaded.tensors["optimizer"]["w/step"] == 3


def test_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none").load_latest() is None


def test_later_changes_to_the_tensors_are_not_saved(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        tensors = _tensors(1.0)
        store.save(1, tensors, {})
        tensors["model"]["w"].fill_(9.0)
    assert load_checkpoint(store.path(1)).tensors["model"]["w"][0, 0] == 1


def test_save_returns_while_the_write_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row T21: training goes on; the folder appears only when everything is on disk."""
    release, write = threading.Event(), checkpoints.write_checkpoint

    def held_back(*arguments) -> None:
        assert release.wait(timeout=10)
        write(*arguments)

    monkeypatch.setattr(checkpoints, "write_checkpoint", held_back)
    with CheckpointStore(tmp_path) as store:
        store.save(1, _tensors(), {})
        assert store.steps() == []
        release.set()
    assert store.steps() == [1]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    assert _saved(tmp_path, [1, 2, 3, 4], keep=2).steps() == [3, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_truncated_file_falls_back_to_the_previous_checkpoint(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = _saved(tmp_path, [1, 2])
    damaged = store.path(2) / file
    damaged.write_bytes(damaged.read_bytes()[:-3])
    loaded = store.load_latest()
    assert loaded is not None
    assert loaded.step == 1
    assert file in capsys.readouterr().err.replace("\n", "")


def test_changed_byte_is_found_and_named(tmp_path: Path) -> None:
    store = _saved(tmp_path, [1])
    path = store.path(1) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"content of .*model\.safetensors has changed") as e:
        store.load_latest()
    assert "delete" in str(e.value)


def test_missing_file_and_missing_manifest_are_named(tmp_path: Path) -> None:
    store = _saved(tmp_path, [1, 2])
    (store.path(1) / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors is missing"):
        load_checkpoint(store.path(1))
    (store.path(2) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no manifest\.json"):
        load_checkpoint(store.path(2))


@pytest.mark.parametrize("function", ["write_tensors", "write_json"])
def test_full_disk_surfaces_and_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    store = _saved(tmp_path, [1])

    def full(*arguments) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, function, full)
    store.save(2, _tensors(), {})
    with pytest.raises(ResourceError, match="disk is full"):
        store.wait()
    store.check()  # an error is told once
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    loaded = store.load_latest()
    assert loaded is not None
    assert loaded.step == 1


def test_half_written_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    _saved(tmp_path, [1])
    partial = tmp_path / ".partial-step-00000002"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert CheckpointStore(tmp_path).steps() == [1]
    assert not partial.exists()


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    store = _saved(tmp_path, [1])
    names = {path.name for path in store.path(1).iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    json.loads((store.path(1) / "state.json").read_text())


def test_random_state_round_trips_through_tensors() -> None:
    random.seed(3)
    random.gauss(0, 1)  # leaves a second number waiting
    torch.manual_seed(3)
    state = {name: value.clone() for name, value in capture_random_state().items()}
    wanted = (random.gauss(0, 1), random.random(), torch.rand(3))
    random.seed(4)
    torch.manual_seed(4)
    restore_random_state(state)
    assert (random.gauss(0, 1), random.random()) == wanted[:2]
    assert torch.equal(torch.rand(3), wanted[2])


def test_draws_inside_the_block_are_undone() -> None:
    torch.manual_seed(0)
    random.seed(0)
    wanted = torch.rand(2), random.random()
    torch.manual_seed(0)
    random.seed(0)
    with preserved_random_state():
        torch.rand(10)
        random.random()
    assert torch.equal(torch.rand(2), wanted[0])
    assert random.random() == wanted[1]
