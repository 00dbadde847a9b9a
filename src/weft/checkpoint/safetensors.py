"""Safetensors files: read where the numbers belong, check, write atomically, shard.

A file is a length, a JSON header (name, element type, shape, range) and the bytes
(https://github.com/huggingface/safetensors). Reading goes through this module rather than the
library because bytes can then land in the model's own memory, without a copy in between.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from weft.core.errors import CheckpointError
from weft.core.files import disk_errors, read_json, write_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # the format's own limit

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "U16": torch.uint16, "I32": torch.int32, "U32": torch.uint32, "I64": torch.int64,
    "U64": torch.uint64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32,
    "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies.

    Attributes:
        path: The file.
        dtype: Its element type.
        shape: Its shape.
        start: Offset of its first byte in the file.
    """

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read_bytes(self, target: memoryview, skip: int = 0) -> None:
        """Fill ``target`` with the tensor's bytes from ``skip`` on."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start + skip)
            done = 0
            while done < len(target):
                num_read = file.readinto(target[done:])
                if not num_read:
                    raise CheckpointError(
                        f"{self.path} ended while it was read", fix="copy the file again"
                    )
                done += num_read


def as_bytes(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous CPU tensor."""
    flat = tensor.detach().reshape(-1)
    assert flat.data_ptr() == tensor.data_ptr()
    return flat.view(torch.uint8).numpy().data


def read_header(path: Path) -> dict[str, Entry]:
    """Return the tensors of one file.

    Raises:
        CheckpointError: the file is truncated, damaged or no safetensors file.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise ValueError(f"a header of {length} bytes does not fit")
            header: dict[str, Any] = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no table of tensors")
        header.pop("__metadata__", None)
        entries = {name: _entry(path, name, e, 8 + length, size) for name, e in header.items()}
    except (ValueError, KeyError, TypeError, RecursionError, struct.error, OSError) as error:
        raise CheckpointError(
            f"{path} ({size} bytes) cannot be read: {error}",
            fix="the file is truncated or damaged; copy or save it again",
        ) from error
    return entries


def _entry(path: Path, name: str, fields: Mapping[str, Any], base: int, size: int) -> Entry:
    begin, end = fields["data_offsets"]
    if fields["dtype"] not in DTYPES:
        raise ValueError(f"tensor {name!r} has the unknown element type {fields['dtype']!r}")
    if any(not isinstance(n, int) or n < 0 for n in (begin, end, *fields["shape"])):
        raise ValueError(f"tensor {name!r} has sizes that are no counts")
    entry = Entry(path, DTYPES[fields["dtype"]], tuple(fields["shape"]), base + begin)
    if end - begin != entry.size_bytes:
        raise ValueError(f"tensor {name!r} has shape {entry.shape} but {end - begin} bytes")
    if base + end > size:
        raise ValueError(f"tensor {name!r} ends at byte {base + end}")
    return entry


class TensorFiles:
    """The tensors of a checkpoint folder by name; each is read from disk when asked for.

    Raises:
        CheckpointError: no safetensors, an unsafe format, a truncated file, a missing shard.
    """

    def __init__(self, folder: Path, aliases: Sequence[tuple[str, str]] = ()) -> None:
        """Read the headers; ``aliases`` are patterns (``re.sub``) of names and replacements."""
        self.folder = Path(folder)
        self.entries: dict[str, Entry] = {}
        for shard in shard_names(self.folder):
            for name, entry in read_header(self.folder / shard).items():
                for pattern, replacement in aliases:
                    name = re.sub(pattern, replacement, name)
                self.entries[name] = entry

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self.entries)

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.size_bytes for entry in self.entries.values())

    def read(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            CheckpointError: there is none of this name.
        """
        if name not in self.entries:
            raise CheckpointError(
                f"{self.folder} has no tensor {name!r}",
                fix="config.json and the weights do not belong together",
            )
        entry = self.entries[name]
        tensor = torch.empty(entry.shape, dtype=entry.dtype)
        if tensor.numel():
            entry.read_bytes(as_bytes(tensor))
        return tensor


def shard_names(folder: Path) -> list[str]:
    """Return the names of a folder's safetensors files, all of which exist.

    Raises:
        CheckpointError: there is none, only a pickle, or a shard is missing.
    """
    if (folder / INDEX).exists():
        names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
        return [_existing(folder, name) for name in names]
    if (folder / SINGLE).exists():
        return [SINGLE]
    pickled = sorted(path.name for end in ("*.bin", "*.pt*", "*.ckpt") for path in folder.glob(end))
    if pickled:
        raise CheckpointError(
            f"{folder} holds only {pickled[0]}, a pickle; loading one can run any code",
            fix="convert it to safetensors where you trust it",
        )
    raise CheckpointError(f"{folder} has no {SINGLE}", fix="check the folder")


def _existing(folder: Path, name: str) -> str:
    if Path(name).name != name:
        raise CheckpointError(f"{folder / INDEX} names {name!r}, which is not in its folder")
    if not (folder / name).exists():
        raise CheckpointError(
            f"the index names {name}, which is not in {folder}", fix="copy the missing shard"
        )
    return name


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


def write_sharded(
    folder: Path, tensors: Iterable[tuple[str, Tensor]], *, max_shard_bytes: int
) -> None:
    """Write tensors as one file, or as numbered shards with an index when they are too large.

    One shard at a time is held. Files of an older checkpoint in the folder stay until the new
    ones are complete.
    """
    drafts: list[tuple[Path, dict[str, int]]] = []
    try:
        for shard in _shards(tensors, max_shard_bytes):
            draft = folder / f".shard-{len(drafts):05d}.partial"
            drafts.append((draft, {name: _size(tensor) for name, tensor in shard.items()}))
            write_tensors(draft, shard)
        _put_in_place(folder, drafts)
    finally:
        for draft, _ in drafts:
            draft.unlink(missing_ok=True)


def _shards(
    tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int
) -> Iterable[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + _size(tensor) > max_shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += _size(tensor)
    yield shard


def _put_in_place(folder: Path, drafts: list[tuple[Path, dict[str, int]]]) -> None:
    if len(drafts) == 1:
        os.replace(drafts[0][0], folder / SINGLE)
        names = {SINGLE}
        (folder / INDEX).unlink(missing_ok=True)
    else:
        weight_map: dict[str, str] = {}
        for number, (draft, sizes) in enumerate(drafts, start=1):
            file = f"model-{number:05d}-of-{len(drafts):05d}.safetensors"
            os.replace(draft, folder / file)
            weight_map.update(dict.fromkeys(sizes, file))
        total = sum(size for _, sizes in drafts for size in sizes.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
        names = set(weight_map.values())
    for old in {path.name for path in folder.glob("model*.safetensors")} - names:
        (folder / old).unlink()


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _as_os_error(error: SafetensorError) -> OSError:
    """Give the number back that the Rust library wrapped into text (``os error 28``)."""
    text = str(error)
    _, found, tail = text.partition("os error ")
    code = int(tail.split(")")[0]) if found else 5
    return OSError(code, text)
