"""Safetensors files: open lazily, check, write atomically, shard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from weft.core.errors import CheckpointError
from weft.core.files import disk_errors, read_json, write_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class TensorFiles:
    """The tensors of a checkpoint folder by name; each is read from disk when asked for.

    Raises:
        CheckpointError: no safetensors, an unsafe format, a truncated file, a missing shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._files = {}
        self._where: dict[str, str] = {}
        for name in self._shards():
            self._open(name)

    def _shards(self) -> list[str]:
        if (self.folder / INDEX).exists():
            return sorted(set(read_json(self.folder / INDEX)["weight_map"].values()))
        if (self.folder / SINGLE).exists():
            return [SINGLE]
        pickled = sorted(p.name for p in self.folder.glob("*.bin")) + sorted(
            p.name for p in self.folder.glob("*.pt*")
        )
        if pickled:
            raise CheckpointError(
                f"{self.folder} holds only {pickled[0]}, a pickle; loading one can run any code",
                fix="convert it to safetensors where you trust it",
            )
        raise CheckpointError(f"{self.folder} has no {SINGLE}", fix="check the folder")

    def _open(self, name: str) -> None:
        path = self.folder / name
        if not path.exists():
            raise CheckpointError(
                f"the index names {name}, which is not in {self.folder}",
                fix="copy the missing shard",
            )
        try:
            file = safe_open(str(path), framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} ({path.stat().st_size} bytes) cannot be read: {error}",
                fix="the file is truncated or damaged; copy or save it again",
            ) from error
        self._files[name] = file
        self._where.update(dict.fromkeys(file.keys(), name))

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._where)

    def read(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            CheckpointError: there is none of this name.
        """
        if name not in self._where:
            raise CheckpointError(
                f"{self.folder} has no tensor {name!r}",
                fix="config.json and the weights do not belong together",
            )
        return self._files[self._where[name]].get_tensor(name)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file under a temporary name, flush it, rename it into place.

    Raises:
        ResourceError: the disk is full; an older file is left untouched.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with disk_errors(path):
            try:
                save_file(dict(tensors), str(temporary), metadata={"format": "pt"})
            except SafetensorError as error:
                raise _as_os_error(error) from error
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_sharded(folder: Path, tensors: Mapping[str, Tensor], *, max_shard_bytes: int) -> None:
    """Write tensors as one file, or as numbered shards with an index when they are too large."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        num_bytes = tensor.numel() * tensor.element_size()
        if shards[-1] and size + num_bytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += num_bytes
    if len(shards) == 1:
        write_tensors(folder / SINGLE, shards[0])
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(folder / file, shard)
        weight_map.update(dict.fromkeys(shard, file))
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _as_os_error(error: SafetensorError) -> OSError:
    """Give the number back that the Rust library wrapped into text (``os error 28``)."""
    text = str(error)
    _, found, tail = text.partition("os error ")
    code = int(tail.split(")")[0]) if found else 5
    return OSError(code, text)
