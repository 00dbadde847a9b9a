"""One rank's share of a Hugging Face folder.

Files are mapped into memory and only what the rank holds is copied out of them, so a rank neither
reads nor keeps the rest; only a tensor that is stored packed is decoded whole, one at a time.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from weft.checkpoint.hf import check_quantisation, ignored_names, load_spec, stored_dtype
from weft.checkpoint.memory import materialise
from weft.checkpoint.safetensors import Entry, TensorFiles
from weft.checkpoint.stored_forms import find_form
from weft.checkpoint.transfer import LoadReport, check_names
from weft.core.errors import CheckpointError
from weft.dist.collectives import Collectives
from weft.models.cuts import Sharding
from weft.models.decoder import Decoder
from weft.models.families import key_map, rules
from weft.models.hf_keys import Part, parts
from weft.models.sharded import ShardedDecoder
from weft.models.sharding import ExpertSplit, plan_sharding
from weft.models.staged import StagedDecoder, Stages, plan_stages


def load_sharded(
    folder: Path,
    group: Collectives,
    *,
    expert_split: ExpertSplit = "width",
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> ShardedDecoder:
    """Load this rank's part of a model; all ranks load together.

    Args:
        folder: config.json and safetensors, which every rank can read.
        group: The ranks.
        expert_split: See ``plan_sharding``.
        dtype: Element type; none keeps the type the checkpoint was saved in.
        device: Where this rank computes.

    Raises:
        CheckpointError: missing, surplus, truncated or misshapen tensors, by name.
        ConfigError: the model's sizes do not divide among the ranks.
        UnsupportedError: a layer that ranks cannot share.
    """
    spec = load_spec(folder)
    files = TensorFiles(folder, key_map(spec).aliases)
    key_parts = list(parts(rules(spec)))
    plan = plan_sharding(spec, group.size, expert_split=expert_split)
    model = ShardedDecoder(plan, group, dtype=dtype or stored_dtype(files, key_parts))
    materialise(model, device)
    fill_sharded(model, files, key_parts)
    return model


def load_stage(
    folder: Path,
    group: Stages,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> StagedDecoder:
    """Load the layers of this rank's stage; see ``load_sharded``.

    Raises:
        CheckpointError, ConfigError, UnsupportedError: see ``load_sharded`` and ``plan_stages``.
    """
    spec = load_spec(folder)
    files = TensorFiles(folder, key_map(spec).aliases)
    key_parts = list(parts(rules(spec)))
    plan = plan_stages(spec, group.size)[group.rank]
    model = StagedDecoder(plan, group, dtype=dtype or stored_dtype(files, key_parts))
    materialise(model, device)
    fill_sharded(model, files, key_parts)
    return model


@torch.no_grad()
def fill_sharded(
    model: ShardedDecoder | StagedDecoder, files: TensorFiles, key_parts: list[Part]
) -> LoadReport:
    """Fill a rank's tensors from the files, in place; ``size_bytes`` counts what was copied.

    Raises:
        CheckpointError: see ``load_sharded``.
    """
    start_s = time.perf_counter()
    check_quantisation(files)
    forms = {part.theirs: find_form(part.theirs, files.entries) for part in key_parts}
    needed = {
        name
        for theirs, form in forms.items()
        for name in (form.names(theirs) if form is not None else (theirs,))
    }
    check_names(files, needed, ignored_names(model.plan.whole))
    shapes = _whole_shapes(model)
    ours, mapped, num_bytes = model.state_dict(), _MappedFiles(), 0
    for part in key_parts:
        form, sharding = forms[part.theirs], model.plan.sharding(part.ours)
        name = model.plan.local_name(part.ours)
        if name is None:
            continue
        target = ours[name]
        if sharding.first_only and model.group.rank > 0:
            target.zero_()
            continue
        moves = list(_moves(shapes[part.ours], part, sharding, model))
        if not moves:
            continue
        if form is None:
            theirs = mapped.read(files.entries[part.theirs])
        else:
            first, second = (files.read(name) for name in form.names(part.theirs))
            theirs = form.decode(first, second, target.dtype)
        theirs = part.layout.to_ours(theirs) if part.layout is not None else theirs
        theirs = theirs if part.index is None else theirs.unsqueeze(0)
        _check_shape(theirs, shapes[part.ours], part, files.folder)
        for move in moves:
            piece = theirs.narrow(move.axis, move.source, move.size)
            move.target(target).copy_(piece)
            num_bytes += piece.numel() * piece.element_size()
    paths = {files.entries[name].path for name in needed}
    return LoadReport(len(needed), len(paths), num_bytes, time.perf_counter() - start_s)


@dataclass(frozen=True)
class _Move:
    """A run of one axis of a stored part, and the box of ours that it fills.

    Attributes:
        axis: The axis that ranks share.
        source: Where the run begins in the part.
        size: How long it is.
        box: Start and length of the box on every axis of this rank's tensor.
    """

    axis: int
    source: int
    size: int
    box: tuple[tuple[int, int], ...]

    def target(self, tensor: Tensor) -> Tensor:
        """Return the view of this rank's tensor that is filled."""
        for axis, (start, size) in enumerate(self.box):
            tensor = tensor.narrow(axis, start, size)
        return tensor


def _moves(
    shape: tuple[int, ...], part: Part, sharding: Sharding, model: ShardedDecoder | StagedDecoder
) -> Iterator[_Move]:
    """Yield what a rank takes of one stored part."""
    region, axis = _region(shape, part), sharding.axis
    begin, length = region[axis]
    for span in sharding.spans(shape[axis], model.group.rank, model.group.size):
        low, high = max(begin, span.start), min(begin + length, span.start + span.size)
        if low < high:
            box = list(region)
            box[axis] = (span.local_start + low - span.start, high - low)
            yield _Move(axis, low - begin, high - low, tuple(box))


def _region(shape: tuple[int, ...], part: Part) -> list[tuple[int, int]]:
    """Return start and length on every axis of what a part fills in the whole tensor of ours."""
    region = [(0, size) for size in shape]
    if part.index is not None:
        region[0] = (part.index, 1)
    if part.size is not None:
        region[part.axis + (part.index is not None)] = (part.start, part.size)
    return region


def _whole_shapes(model: ShardedDecoder | StagedDecoder) -> dict[str, tuple[int, ...]]:
    whole = Decoder(model.plan.whole, device="meta")
    return {name: tuple(tensor.shape) for name, tensor in whole.state_dict().items()}


def _check_shape(theirs: Tensor, shape: tuple[int, ...], part: Part, folder: Path) -> None:
    wanted = tuple(size for _, size in _region(shape, part))
    if tuple(theirs.shape) != wanted:
        raise CheckpointError(
            f"{folder}: tensor {part.theirs!r} has shape {tuple(theirs.shape)}, but config.json "
            f"describes {wanted}",
            fix="config.json and the weights do not belong together",
        )


class _MappedFiles:
    """Files mapped into memory: pages are read when they are copied from."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}

    def read(self, entry: Entry) -> Tensor:
        """Return a tensor whose numbers are still in the file; it must not be written to."""
        if entry.size_bytes == 0:
            return torch.empty(entry.shape, dtype=entry.dtype)
        if entry.path not in self._maps:
            with entry.path.open("rb") as file:
                # Private pages may be written to, which spares torch a warning.
                prot = mmap.PROT_READ | mmap.PROT_WRITE
                self._maps[entry.path] = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, prot)
        mapped = self._maps[entry.path]
        count = entry.size_bytes // entry.dtype.itemsize
        flat = torch.frombuffer(mapped, dtype=entry.dtype, count=count, offset=entry.start)
        return flat.view(entry.shape)
