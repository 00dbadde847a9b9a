"""Sleep and wake: an engine lets go of its memory and takes it back later.

Two things are let go of, by tag:

- ``kv_cache``: keys, values and recurrent states, those of drafting models too. Requests under way
  are retracted: they keep their tokens and are computed again. The prefix cache is lost.
- ``weights``: the tensors of the module. At level 1 a copy is kept, in the host's memory for an
  engine on a GPU and in a temporary file for one on a CPU, where the host's memory is what is to
  be freed. At level 2 they are thrown away and an update or a reload has to bring new ones; until
  then the engine counts as torn.

Tensor objects survive, parameters included; only their memory goes and comes. So a trainer that
shares the module shares it still after ``wake``, and must not compute with it before: whoever
trains the engine's own tensors lets only ``kv_cache`` sleep. Graphs that were captured with the old
addresses would have to be captured again; engines that have some are refused.
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from weft.checkpoint.memory import empty_weights
from weft.checkpoint.safetensors import TensorFiles, as_bytes, write_sharded
from weft.core.errors import ConfigError, UnsupportedError, did_you_mean
from weft.core.files import disk_errors

if TYPE_CHECKING:
    from weft.engine.core import EngineCore

WEIGHTS, KV_CACHE = "weights", "kv_cache"
TAGS = (WEIGHTS, KV_CACHE)
MAX_SHARD_BYTES = 2 * 10**9

Level = Literal[1, 2]


@dataclass(frozen=True)
class SleepReport:
    """What a sleep or a wake did.

    Attributes:
        predicted_bytes: What the arithmetic says is let go of, or taken back.
        moved_bytes: What the storages really gave back, or took. Less than predicted means that
            somebody else holds the same memory.
        seconds: How long it took.
    """

    predicted_bytes: int
    moved_bytes: int
    seconds: float


class Sleeper:
    """Puts the memory of one engine to sleep.

    Args:
        core: The engine.
        folder: Where a CPU engine keeps its weights meanwhile; none is the system's folder of
            temporary files, which should not be in memory itself.
    """

    def __init__(self, core: EngineCore, folder: Path | None = None) -> None:
        self._core = core
        self._folder = folder
        self._shapes: dict[str, dict[str, Tensor]] = {}
        self._keep: _Keep | None = None

    @property
    def asleep(self) -> frozenset[str]:
        """Tags of what was let go."""
        return self._core.gate.asleep

    def predicted_bytes(self, tag: str) -> int:
        """Return what ``sleep`` with this tag is to free: the numbers in all its tensors."""
        return sum(_size(tensor) for tensor in self._tensors(tag).values())

    def sleep(self, tags: Iterable[str] = TAGS, *, level: Level = 1) -> SleepReport:
        """Let go of memory; what is asleep already stays asleep.

        Raises:
            ConfigError: a tag or a level there is not.
            ResourceError: the disk has no room for the weights; nothing was let go.
            UnsupportedError: other ranks have parts of the model, or recorded graphs name the
                memory.
        """
        start_s = time.perf_counter()
        new = self._check_tags(tags) - self.asleep
        if level not in (1, 2):
            raise ConfigError(f"sleep level is {level}", fix="use 1 (keep) or 2 (throw away)")
        core = self._core
        core.check_one_process("a sleep")
        if core.config.cuda_graphs and core.model.device.type == "cuda":
            raise UnsupportedError(
                "recorded graphs name the memory that is to be let go of",
                fix="set cuda_graphs to false",
            )
        core.drain()
        if KV_CACHE in new:
            core.flush_prefixes()
        if WEIGHTS in new and level == 1:
            self._keep = _keep(self._tensors(WEIGHTS), core.model.device, self._folder)
        predicted = sum(self.predicted_bytes(tag) for tag in new)
        core.gate.asleep |= new
        freed = sum(self._let_go(tag) for tag in sorted(new))
        return SleepReport(predicted, freed, time.perf_counter() - start_s)

    def wake(self, tags: Iterable[str] = TAGS) -> SleepReport:
        """Take memory back; what is awake already stays awake.

        Weights that were thrown away come back as memory without numbers: the engine stays
        closed until they are updated or reloaded.

        Raises:
            ConfigError: a tag there is not.
        """
        start_s = time.perf_counter()
        due = self._check_tags(tags) & self.asleep
        taken = sum(self._take_back(tag) for tag in sorted(due))
        if WEIGHTS in due:
            if self._keep is None:
                self._core.gate.torn = True
            else:
                self._keep.restore(self._tensors(WEIGHTS))
                self._keep = None
        self._core.gate.asleep -= due
        predicted = sum(self.predicted_bytes(tag) for tag in due)
        return SleepReport(predicted, taken, time.perf_counter() - start_s)

    def _check_tags(self, tags: Iterable[str]) -> frozenset[str]:
        wanted = frozenset(tags)
        for tag in wanted:
            if tag not in TAGS:
                raise ConfigError(f"there is no sleep tag {tag!r}", fix=did_you_mean(tag, TAGS))
        return wanted

    def _tensors(self, tag: str) -> Mapping[str, Tensor]:
        if tag == WEIGHTS:
            return dict(_tensors_of_module(self._core.model))
        return {
            f"{number}.{kind}.{layer}.{name}": tensor
            for number, cache in enumerate(self._core.runner.caches)
            for kind, layers in (("tokens", cache.tokens), ("states", cache.states))
            for layer, kept in enumerate(layers)
            for name, tensor in kept.items()
        }

    def _let_go(self, tag: str) -> int:
        """Free the memory of a tag; return the bytes of the storages that are gone."""
        tensors = self._tensors(tag)
        self._shapes[tag] = {name: tensor.to("meta") for name, tensor in tensors.items()}
        sizes: dict[StorageWeakRef, int] = {}
        for tensor in tensors.values():
            storage = tensor.untyped_storage()
            sizes[StorageWeakRef(storage)] = storage.nbytes()
            del storage
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        freed = sum(size for reference, size in sizes.items() if reference.expired())
        _return_to_system(self._core.model.device)
        return freed

    def _take_back(self, tag: str) -> int:
        """Give the tensors of a tag memory again: zeros for a cache, anything for weights."""
        shapes = self._shapes.pop(tag)
        tensors = self._tensors(tag)
        for name, tensor in tensors.items():
            if tag == KV_CACHE:
                # Slots nobody wrote are read and masked; what is not finite would not be masked.
                tensor.data = torch.zeros_like(shapes[name], device=tensor.device)
            else:
                tensor.data = empty_weights(shapes[name], tensor.device)
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())


class _Keep:
    """Copies of tensors in the host's memory."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._copies = {name: t.detach().to("cpu").pin_memory() for name, t in tensors.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy everything back."""
        for name, tensor in tensors.items():
            tensor.copy_(self._copies[name], non_blocking=True)
        torch.cuda.synchronize()


class _KeepOnDisk(_Keep):
    """Copies of tensors in a temporary folder, which is gone after ``restore`` or with this."""

    def __init__(self, tensors: Mapping[str, Tensor], folder: Path | None) -> None:
        with disk_errors(folder or Path(tempfile.gettempdir())):
            self._folder = Path(tempfile.mkdtemp(prefix="weft-sleep-", dir=folder))
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        contiguous = ((name, tensor.detach().contiguous()) for name, tensor in tensors.items())
        try:
            write_sharded(self._folder, contiguous, max_shard_bytes=MAX_SHARD_BYTES)
        except BaseException:
            self._remove()
            raise

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Read everything back, straight into place."""
        files = TensorFiles(self._folder)
        for name, tensor in tensors.items():
            if tensor.numel():
                files.entries[name].read_bytes(as_bytes(tensor))
        self._remove()


def _keep(tensors: Mapping[str, Tensor], device: torch.device, folder: Path | None) -> _Keep:
    return _KeepOnDisk(tensors, folder) if device.type == "cpu" else _Keep(tensors)


def _tensors_of_module(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what a checkpoint holds: parameters and persistent buffers, each once, themselves."""
    names = module.state_dict().keys()
    tensors = dict(module.named_parameters(remove_duplicate=False))
    tensors |= dict(module.named_buffers(remove_duplicate=False))
    seen: set[int] = set()
    for name in names:
        if id(tensors[name]) not in seen:
            seen.add(id(tensors[name]))
            yield name, tensors[name]


def _return_to_system(device: torch.device) -> None:
    """Give memory that was freed from the allocator back to whoever needs it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return
    # glibc keeps what lay below the end of its heap.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
