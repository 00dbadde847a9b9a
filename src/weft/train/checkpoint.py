"""Training checkpoints: written in the background, complete or not there at all.

::

    FOLDER/
      step-00000100/
        model.safetensors      parameters
        optimizer.safetensors  optimizer state, named parameter/key
        random.safetensors     random generators
        state.json             counters of the run
        manifest.json          size and SHA-256 of each file above
      .partial-step-00000200/  being written; deleted at the next start

``save`` copies the tensors to the CPU and returns; a thread writes them into a hidden folder,
flushes every file and renames the folder. A process killed at any moment leaves the previous
checkpoint valid. No pickle is written or read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from weft.checkpoint.safetensors import write_tensors
from weft.core.console import error_console
from weft.core.errors import CheckpointError
from weft.core.files import disk_errors, read_json, write_json

MANIFEST = "manifest.json"
STATE = "state.json"
_PREFIX = "step-"
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class TrainingCheckpoint:
    """One checkpoint in memory.

    Attributes:
        step: Steps done when it was taken.
        tensors: Named tensors by file ("model", "optimizer", "random" ...), on the CPU.
        state: Numbers and texts of the run.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: Where they live; made when the first one is written.
        keep: How many to keep; older ones are deleted once a newer one is complete.

    Use it as a context manager, or call ``close``: the last write may still be under way.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = Path(folder)
        self._keep = max(keep, 1)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        for partial in self.folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(partial, ignore_errors=True)

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        """Copy the tensors and start writing them; waits only for an earlier write.

        Raises:
            ResourceError: the *earlier* background write found a full or read-only disk.
        """
        self.wait()
        copied = {file: _snapshot(named) for file, named in tensors.items()}
        checkpoint = TrainingCheckpoint(step, copied, dict(state))
        self._thread = threading.Thread(
            target=self._write_in_background, args=(checkpoint,), name="checkpoint"
        )
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a failed background write, without waiting for a running one."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until nothing is being written, then ``check``."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def close(self) -> None:
        """Finish the last write and raise its error, if it had one."""
        self.wait()

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, oldest first."""
        return sorted(
            int(path.name.removeprefix(_PREFIX)) for path in self.folder.glob(f"{_PREFIX}*")
        )

    def path(self, step: int) -> Path:
        """Return the folder of the checkpoint of ``step``."""
        return self.folder / f"{_PREFIX}{step:08d}"

    def load_latest(self) -> TrainingCheckpoint | None:
        """Load the newest valid checkpoint; damaged newer ones are named in a warning line.

        Returns none when there is no checkpoint at all.

        Raises:
            CheckpointError: there are checkpoints, and all are damaged.
        """
        damage: CheckpointError | None = None
        for step in reversed(self.steps()):
            try:
                return load_checkpoint(self.path(step))
            except CheckpointError as error:
                damage = damage or error
                error_console.print(f"warning: {error.message}; trying an older checkpoint")
        if damage is not None:
            raise damage
        return None

    def _write_in_background(self, checkpoint: TrainingCheckpoint) -> None:
        try:
            write_checkpoint(self.path(checkpoint.step), checkpoint)
            self._delete_old()
        except BaseException as error:
            self._error = error

    def _delete_old(self) -> None:
        for step in self.steps()[: -self._keep]:
            shutil.rmtree(self.path(step), ignore_errors=True)

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            # The error on its way up is the one to show.
            with contextlib.suppress(Exception):
                self.close()


def write_checkpoint(path: Path, checkpoint: TrainingCheckpoint) -> None:
    """Write a checkpoint folder so that ``path`` appears only when everything is on disk.

    Raises:
        ResourceError: the disk is full or not writable; nothing is left of the attempt.
    """
    partial = path.parent / f"{_PARTIAL}{path.name}"
    try:
        with disk_errors(path):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for file, tensors in checkpoint.tensors.items():
                write_tensors(partial / f"{file}.safetensors", tensors)
            write_json(partial / STATE, {**checkpoint.state, "step": checkpoint.step})
            write_json(partial / MANIFEST, {"files": _describe_files(partial)})
            _flush_folder(partial)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(partial, path)
            _flush_folder(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def load_checkpoint(path: Path) -> TrainingCheckpoint:
    """Read a checkpoint folder after holding every file against the manifest.

    Raises:
        CheckpointError: a file is missing, truncated or changed; the message names it.
    """
    if not (path / MANIFEST).is_file():
        raise CheckpointError(f"{path} has no {MANIFEST}", fix=_fix(path))
    for name, entry in read_json(path / MANIFEST)["files"].items():
        _check_file(path / name, entry)
    state = read_json(path / STATE)
    tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return TrainingCheckpoint(state.pop("step"), tensors, state)


def _snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    copies = {
        name: tensor.detach().to("cpu", non_blocking=True, copy=True).contiguous()
        for name, tensor in tensors.items()
    }
    if any(tensor.is_cuda for tensor in tensors.values()):
        torch.cuda.synchronize()
    return copies


def _describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.name: {"size_bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
    }


def _check_file(path: Path, entry: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", fix=_fix(path.parent))
    size = path.stat().st_size
    if size != entry["size_bytes"]:
        raise CheckpointError(
            f"{path} has {size} bytes instead of {entry['size_bytes']}", fix=_fix(path.parent)
        )
    if _sha256(path) != entry["sha256"]:
        raise CheckpointError(f"the content of {path} has changed", fix=_fix(path.parent))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fix(folder: Path) -> str:
    return f"restore a copy of {folder.name}, or delete {folder} and run the command again"
