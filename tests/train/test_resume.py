"""Row T01, T21: kill -9 at any moment, then continue bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.train.helpers import CountingSource
from tests.train.resume_child import CONFIG, train
from weft.train.checkpoint import CheckpointStore, TrainingCheckpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> TrainingCheckpoint:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder, CountingSource())
    return _last(folder)


@pytest.mark.parametrize(
    ("how", "step", "survives"), [("kill-after-step", 13, 10), ("kill-in-write", 15, 10)]
)
def test_killed_run_continues_bit_for_bit(
    how: str, step: int, survives: int, tmp_path: Path, uninterrupted: TrainingCheckpoint
) -> None:
    killed = subprocess.run(
        [sys.executable, "-m", "tests.train.resume_child", str(tmp_path), how, str(step)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert _last(tmp_path).step == survives
    assert bool(list(tmp_path.glob(".partial-*"))) == (how == "kill-in-write")

    source = CountingSource()
    train(tmp_path, source)
    assert source.asked[0] == survives * CONFIG.num_micro_batches
    _assert_bit_identical(_last(tmp_path), uninterrupted)


def _last(folder: Path) -> TrainingCheckpoint:
    checkpoint = CheckpointStore.load_latest(_Reader(folder))
    assert checkpoint is not None
    return checkpoint


class _Reader(CheckpointStore):
    """Looks without cleaning up what a killed process left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def _assert_bit_identical(ours: TrainingCheckpoint, theirs: TrainingCheckpoint) -> None:
    assert ours.step == theirs.step == CONFIG.steps
    assert ours.tensors.keys() == theirs.tensors.keys() >= {"model", "optimizer", "average"}
    for file, tensors in theirs.tensors.items():
        assert ours.tensors[file].keys() == tensors.keys()
        for name, tensor in tensors.items():
            same = torch.equal(ours.tensors[file][name], tensor)
            nan = tensor.isnan().all() and ours.tensors[file][name].isnan().all()
            assert same or nan, f"{file}: {name}"
    ours_train, theirs_train = ours.state["train"], theirs.state["train"]
    assert ours_train["loss"] == theirs_train["loss"]
    assert ours_train["num_tokens"] == theirs_train["num_tokens"]
