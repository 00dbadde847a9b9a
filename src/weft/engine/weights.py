"""The weights of an engine: bound without a copy, updated in place, loaded again from disk.

An engine computes with the very tensors of the module it was given. A trainer in the same process
that changes them in place has nothing to send; it says so by ``LLM.bump_weight_version``. Trainers
elsewhere send named tensors, whole or in buckets, which are copied into the same memory: graphs,
compiled code and everyone else who holds the tensors go on with the new numbers.

Each change raises the version, which is part of every prefix's key: keys and values of older
weights are never found again. What becomes of requests under way is for ``weft.engine.pause`` to
say.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from weft.checkpoint.hf import load_model, load_spec
from weft.checkpoint.named import Places
from weft.checkpoint.sources import FolderSource, RandomSource, WeightSource, build_model
from weft.checkpoint.transfer import BrokenLoadError, LoadReport
from weft.core.errors import (
    CheckpointError,
    ConfigError,
    ResourceError,
    UnsupportedError,
    UserError,
)
from weft.dist.tensor_info import TensorInfo
from weft.models.decoder import Decoder

if TYPE_CHECKING:
    from weft.engine.core import EngineCore

LoadFormat = Literal["auto", "dummy"]
NamedTensors = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]


@dataclass(frozen=True)
class UpdateReport:
    """What an update did.

    Attributes:
        weight_version: Since then.
        num_tensors: Tensors received.
        size_bytes: Their bytes, as sent.
        seconds: From the first check to the new version.
    """

    weight_version: int
    num_tensors: int
    size_bytes: int
    seconds: float


class WeightUpdate:
    """An update under way; ``EngineWeights.begin`` makes one.

    Attributes:
        report: What it did, once it is complete.
    """

    def __init__(self, places: Places, infos: Sequence[TensorInfo], *, staged: bool) -> None:
        self.report: UpdateReport | None = None
        self.num_written = 0
        self._places = places
        self._expected = {info.name: info for info in infos}
        self._staged: list[tuple[str, Tensor]] | None = [] if staged else None

    def write(self, bucket: Iterable[tuple[str, Tensor]]) -> None:
        """Take in some of the tensors that were announced; they are not kept.

        Raises:
            CheckpointError: one that was not announced, or not so.
        """
        for name, tensor in bucket:
            info = self._expected.pop(name, None)
            if info != TensorInfo.of(name, tensor):
                raise CheckpointError(
                    f"tensor {name!r} of shape {tuple(tensor.shape)} was not announced",
                    fix="begin an update with the names, shapes and types of all its tensors",
                )
            if self._staged is not None:
                self._staged.append((name, tensor.clone()))
            else:
                self._write(name, tensor)

    def finish(self) -> None:
        """Write what was staged.

        Raises:
            CheckpointError: tensors that were announced did not come.
        """
        if self._expected:
            missing = next(iter(self._expected))
            raise CheckpointError(
                f"tensor {missing!r} was announced and did not come ({len(self._expected)} in all)",
                fix="send every tensor that was announced, or announce fewer",
            )
        for name, tensor in self._staged or ():
            self._write(name, tensor)

    def _write(self, name: str, tensor: Tensor) -> None:
        self.num_written += 1
        place = self._places.find(name)
        if place is not None:
            place.write(tensor)


def open_weights(
    folder: Path,
    *,
    load_format: LoadFormat = "auto",
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    mtp: bool = False,
) -> tuple[Decoder, WeightSource]:
    """Return a new model with its first load of weights, and where they can be had again.

    Args:
        folder: A checkpoint; for random weights its config.json is enough.
        load_format: "auto" reads the files, "dummy" draws random weights.
        dtype: Element type; none keeps the checkpoint's, float32 for random weights.
        device: Where the weights go.
        mtp: Load the multi-token prediction modules too.

    Raises:
        ConfigError: there is no such format.
        CheckpointError: see ``weft.checkpoint.hf.load_model``.
    """
    if load_format == "auto":
        model = load_model(folder, dtype=dtype, device=device, mtp=mtp)
        source = FolderSource(folder)
        source.num_loads = 1
        return model, source
    if load_format != "dummy":
        raise ConfigError(f"load_format is {load_format!r}", fix="use 'auto' or 'dummy'")
    random = RandomSource(load_spec(folder, mtp=mtp))
    return build_model(random, dtype=dtype or torch.float32, device=device), random


class EngineWeights:
    """Changes the weights of one engine, between its steps.

    Args:
        core: The engine.
        source: Where the weights came from; none for a module that was built elsewhere.
    """

    def __init__(self, core: EngineCore, source: WeightSource | None = None) -> None:
        self._core = core
        self.source = source

    @property
    def version(self) -> int:
        """The version tokens are drawn with."""
        return self._core.weight_version

    @property
    def num_loads(self) -> int:
        """How often the source was loaded; 0 without one."""
        return 0 if self.source is None else self.source.num_loads

    def update(
        self, tensors: NamedTensors, *, version: int | None = None, partial: bool = False
    ) -> UpdateReport:
        """Replace weights by named tensors, all of which are at hand.

        Args:
            tensors: By our names (``layers.0.mixer.qkv.weight``) or those of Hugging Face
                checkpoints (``model.layers.0.self_attn.q_proj.weight``), in any mixture.
            version: The new version; none counts one on.
            partial: Weights may be missing; they stay as they are.

        Raises:
            CheckpointError: a wrong name, a wrong shape or a missing tensor; nothing was written.
            ConfigError: the version is not above the present one; nothing was written.
            ResourceError: the weights are asleep.
            UnsupportedError: other ranks have parts of the model.
        """
        given = tensors.items() if isinstance(tensors, Mapping) else tensors
        pairs = list(cast(Iterable[tuple[str, Tensor]], given))
        infos = [TensorInfo.of(name, tensor) for name, tensor in pairs]
        with self.begin(infos, version=version, partial=partial) as update:
            update.write(pairs)
        assert update.report is not None
        return update.report

    @contextlib.contextmanager
    def begin(
        self,
        infos: Sequence[TensorInfo],
        *,
        version: int | None = None,
        partial: bool = False,
        staged: bool = False,
    ) -> Iterator[WeightUpdate]:
        """Announce an update whose tensors come in buckets; leaving the context completes it.

        An update that breaks off after it has begun to write leaves weights that are half old and
        half new. The engine then refuses to compute until a whole update has come. With
        ``staged`` all tensors are collected first, for as much memory again, and an update that
        breaks off changes nothing.

        Raises:
            CheckpointError, ConfigError, ResourceError: see ``update``; nothing was written.
        """
        start_s = time.perf_counter()
        core = self._core
        self._core.check_one_process("an update of weights")
        self._check_awake()
        version = self._next_version(version)
        places = Places(core.model)
        places.check(infos, partial=partial)
        if partial and core.gate.torn:
            core.gate.check_takes_requests()
        core.drain()
        update = WeightUpdate(places, infos, staged=staged)
        try:
            yield update
            update.finish()
        except BaseException:
            core.gate.torn = core.gate.torn or update.num_written > 0
            raise
        core.gate.torn = False
        update.report = UpdateReport(
            weight_version=core.bump_weight_version(version),
            num_tensors=len(infos),
            size_bytes=sum(info.size_bytes for info in infos),
            seconds=time.perf_counter() - start_s,
        )

    def reload(self, folder: str | Path | None = None, *, version: int | None = None) -> LoadReport:
        """Load the weights again, in place: from their source, or from a checkpoint folder.

        A folder becomes the source of later reloads.

        Raises:
            UnsupportedError: the engine was given a module, so there is no source.
            CheckpointError: the checkpoint does not fit; missing and surplus tensors are found
                before anything is written.
        """
        self._core.check_one_process("an update of weights")
        self._check_awake()
        version = self._next_version(version)
        source = self._source_for(folder)
        core = self._core
        core.drain()
        core.gate.torn, was_torn = True, core.gate.torn
        try:
            report = source.load_into(core.model)
        except UserError as error:
            # Names and shapes are compared before anything is written.
            core.gate.torn = was_torn or isinstance(error, BrokenLoadError)
            raise
        core.gate.torn = False
        self.source = source
        core.bump_weight_version(version)
        return report

    def _source_for(self, folder: str | Path | None) -> WeightSource:
        if folder is not None:
            same = isinstance(self.source, FolderSource) and self.source.folder == Path(folder)
            return self.source if same and self.source is not None else FolderSource(Path(folder))
        if self.source is None:
            raise UnsupportedError(
                "this engine was given a module and does not know where its weights came from",
                fix="name a folder, or update the weights by tensors",
            )
        return self.source

    def _next_version(self, version: int | None) -> int:
        now = self._core.weight_version
        if version is not None and version <= now:
            raise ConfigError(
                f"weight version {version} is not above the present one, {now}",
                fix=f"use {now + 1} or more, or leave it out",
            )
        return now + 1 if version is None else version

    def _check_awake(self) -> None:
        if "weights" in self._core.gate.asleep:
            raise ResourceError(
                "the weights are asleep; there is no memory to write to",
                fix='wake them up first: wake(["weights"])',
            )
