"""From files into a model's tensors.

Where a stored tensor has our element type and lies in ours as one piece, its bytes are read
straight into place; else it passes through a buffer. Reads follow the order of the files, a few
at a time, so that the disk sees one stream while memory is being filled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor

from weft.checkpoint.safetensors import Entry, TensorFiles, as_bytes
from weft.checkpoint.stored_forms import StoredForm, find_form
from weft.core.errors import CheckpointError
from weft.models.hf_keys import Part

CHUNK_BYTES = 32 * 2**20
MAX_READERS = 4


class BrokenLoadError(CheckpointError):
    """Reading failed after tensors had been written: some are new, some are not."""


@dataclass(frozen=True)
class LoadReport:
    """What one load did.

    Attributes:
        num_tensors: Tensors of theirs that were read.
        num_files: Files they came from.
        size_bytes: Bytes read.
        seconds: Wall-clock time.
    """

    num_tensors: int
    num_files: int
    size_bytes: int
    seconds: float


def fill(
    ours: Mapping[str, Tensor], parts: list[Part], files: TensorFiles, ignored: tuple[str, ...]
) -> LoadReport:
    """Fill every tensor of ours from the files, in place.

    Args:
        ours: Our tensors by name.
        parts: The tensors of theirs and the places they fill.
        files: The checkpoint.
        ignored: Patterns of names that the files may have and nobody needs.

    Raises:
        CheckpointError: missing, surplus, truncated or misshapen tensors, by name. Missing and
            surplus ones are found before anything is written.
        BrokenLoadError: what was found out only while tensors were being written.
    """
    start_s = time.perf_counter()
    _check_covered(ours, parts)
    forms = {part.theirs: find_form(part.theirs, files.entries) for part in parts}
    needed = {
        name
        for theirs, form in forms.items()
        for name in (form.names(theirs) if form is not None else (theirs,))
    }
    check_names(files, needed, ignored)
    jobs = [job for part in parts for job in _jobs(ours, part, forms[part.theirs], files)]
    jobs.sort(key=lambda job: (job.entry.path, job.entry.start + job.skip))
    num_readers = max(1, min(MAX_READERS, os.cpu_count() or 1))
    with ThreadPoolExecutor(num_readers, thread_name_prefix="weights") as pool:
        try:
            for _ in pool.map(_run, jobs):
                pass
        except CheckpointError as error:
            raise BrokenLoadError(error.message, fix=error.fix) from error
    entries = [files.entries[name] for name in needed]
    return LoadReport(
        num_tensors=len(entries),
        num_files=len({entry.path for entry in entries}),
        size_bytes=sum(entry.size_bytes for entry in entries),
        seconds=time.perf_counter() - start_s,
    )


def place(tensor: Tensor, part: Part) -> Tensor:
    """Return the view of our tensor that a part fills."""
    if part.index is not None:
        tensor = tensor[part.index]
    return tensor if part.size is None else tensor.narrow(part.axis, part.start, part.size)


@torch.no_grad()
def copy_part(target: Tensor, part: Part, tensor: Tensor, where: Path | str) -> None:
    """Copy one tensor of theirs into its place.

    Raises:
        CheckpointError: it has another shape.
    """
    if part.layout is not None:
        tensor = part.layout.to_ours(tensor)
    _check_shape(target, part, tuple(tensor.shape), where)
    target.copy_(tensor)


@dataclass(frozen=True)
class _Job:
    """One read; ``entry`` and ``skip`` say where it starts."""

    entry: Entry
    skip: int
    action: Callable[[], None]


def _run(job: _Job) -> None:
    with torch.no_grad():  # a setting of the thread, not of the process
        job.action()


def _jobs(
    ours: Mapping[str, Tensor], part: Part, form: StoredForm | None, files: TensorFiles
) -> Iterator[_Job]:
    target = place(ours[part.ours].detach(), part)
    if form is not None:
        names = form.names(part.theirs)
        entry = min((files.entries[name] for name in names), key=lambda e: (e.path, e.start))
        yield _Job(entry, 0, lambda: _decode(target, part, form, files))
        return
    entry = files.entries[part.theirs]
    if part.layout is not None or not entry.shape:
        yield _Job(entry, 0, lambda: copy_part(target, part, files.read(part.theirs), files.folder))
        return
    _check_shape(target, part, entry.shape, files.folder)
    yield from _chunks(target, entry)


def _chunks(target: Tensor, entry: Entry) -> Iterator[_Job]:
    """Cut a tensor that lies as ours does into reads of whole rows."""
    if not target.numel():
        return
    row_bytes = entry.size_bytes // entry.shape[0]
    num_rows = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, entry.shape[0], num_rows):
        rows = target[start : start + num_rows]
        skip = start * row_bytes
        direct = rows.device.type == "cpu" and rows.dtype == entry.dtype and rows.is_contiguous()
        function = _read_direct if direct else _read_converted
        yield _Job(entry, skip, lambda f=function, r=rows, s=skip: f(r, entry, s))


def _read_direct(target: Tensor, entry: Entry, skip: int) -> None:
    entry.read_bytes(as_bytes(target), skip)


def _read_converted(target: Tensor, entry: Entry, skip: int) -> None:
    buffer = torch.empty(target.shape, dtype=entry.dtype)
    entry.read_bytes(as_bytes(buffer), skip)
    target.copy_(buffer)


def _decode(target: Tensor, part: Part, form: StoredForm, files: TensorFiles) -> None:
    first, second = (files.read(name) for name in form.names(part.theirs))
    copy_part(target, part, form.decode(first, second, target.dtype), files.folder)


def _check_covered(ours: Mapping[str, Tensor], parts: list[Part]) -> None:
    """A tensor of ours that no rule fills would keep whatever its memory held."""
    filled = dict.fromkeys(ours, 0)
    for part in parts:
        filled[part.ours] += place(ours[part.ours], part).numel()
    wrong = [name for name, tensor in ours.items() if filled[name] != tensor.numel()]
    assert not wrong, f"the key map does not fill {wrong}"


def check_names(files: TensorFiles, needed: set[str], ignored: tuple[str, ...]) -> None:
    """Refuse files that lack a tensor, or have one that is neither needed nor ignored.

    Raises:
        CheckpointError: the first such tensor.
    """
    missing = sorted(needed - files.names)
    surplus = sorted(
        name
        for name in files.names - needed
        if not any(fnmatch(name, pattern) for pattern in ignored)
    )
    for names, what in ((missing, "lacks"), (surplus, "has an unknown")):
        if names:
            raise CheckpointError(
                f"{files.folder} {what} tensor {names[0]!r} ({len(names)} in all)",
                fix="config.json and the weights do not belong together",
            )


def _check_shape(target: Tensor, part: Part, found: tuple[int, ...], where: Path | str) -> None:
    if tuple(target.shape) != found:
        raise CheckpointError(
            f"{where}: tensor {part.theirs!r} has shape {found}, but config.json describes "
            f"{tuple(target.shape)}",
            fix="config.json and the weights do not belong together",
        )
