"""``AdapterStore``: the adapters of one engine by name, in host memory, and who uses them.

Each load of a name is a new generation with a key of its own, "name#generation". Unloading takes
the name away at once; requests that hold the key keep the numbers, which go when the last of them
has ended. Holds come from two sides: the engine core holds the key of each request it has, the
runner that of each sequence it knows, and plans under way may end after their requests.

Both sides may be different threads. Numbers of a key never change, so only names and counts need
the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from weft.adapt.adapter import Adapter, check_fits, concatenated
from weft.core.errors import ConfigError, RequestError, UnsupportedError, did_you_mean
from weft.engine.adapters.slots import HostPairs

SEPARATOR = "#"
PARAM = "adapter"


@dataclass(frozen=True)
class AdapterInfo:
    """An adapter that requests can name.

    Attributes:
        name: What requests say.
        key: Name and generation.
        source: The folder it came from; empty for live tensors.
        rank: Largest rank of a pair.
        num_parameters: Numbers in its pairs.
        size_bytes: Bytes in host memory.
        num_users: Requests and sequences that hold it.
    """

    name: str
    key: str
    source: str
    rank: int
    num_parameters: int
    size_bytes: int
    num_users: int


@dataclass
class _Entry:
    """One generation of a name."""

    key: str
    name: str
    source: str
    adapter_rank: int
    num_parameters: int
    pairs: HostPairs
    num_users: int = 0

    def info(self) -> AdapterInfo:
        size = sum(t.numel() * t.element_size() for pair in self.pairs.values() for t in pair)
        return AdapterInfo(
            self.name, self.key, self.source, self.adapter_rank, self.num_parameters, size,
            self.num_users,
        )  # fmt: skip


class AdapterStore:
    """Names, generations and host copies.

    Args:
        shapes: (rows, input width) of the layers that can have an adapter, by name.
        room: Largest rank of each, all blocks of a layer together.
        dtype: Type the pairs are kept in: the model's.
        pinned: Keep them in page-locked memory, for copies to a GPU.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        room: Mapping[str, int],
        dtype: torch.dtype,
        *,
        pinned: bool = False,
    ) -> None:
        self.shapes = shapes
        self.room = room
        self._dtype = dtype
        self._pinned = pinned
        self._lock = threading.Lock()
        self._keys: dict[str, str] = {}
        self._entries: dict[str, _Entry] = {}
        self._num_loads = 0

    def load(self, name: str, adapter: Adapter, *, source: str = "", replace: bool = False) -> str:
        """Keep a copy of an adapter under a name; return its key.

        With ``replace`` the name may be taken: requests that come from now on get this one.

        Raises:
            ConfigError: the name is taken or cannot be one, or a rank is too large.
            UnsupportedError: a layer that can have no adapter.
            CheckpointError: the adapter is another model's.
        """
        self.check(name, adapter, replace=replace)
        pairs = {layer: self._pair(layer, adapter) for layer in adapter.blocks}
        with self._lock:
            self._num_loads += 1
            key = f"{name}{SEPARATOR}{self._num_loads}"
            numbers = adapter.rank, adapter.num_parameters
            self._entries[key] = _Entry(key, name, source, *numbers, pairs)
            old = self._keys.get(name)
            self._keys[name] = key
            if old is not None:
                self._drop_unused(self._entries[old])
        return key

    def check(self, name: str, adapter: Adapter, *, replace: bool = False) -> None:
        """Refuse what cannot be loaded.

        Raises:
            ConfigError, UnsupportedError, CheckpointError: see ``load``.
        """
        self._check_name(name, replace=replace)
        self._check_adapter(name, adapter)

    def unload(self, name: str) -> None:
        """Take a name away; requests that were accepted go on with it.

        Raises:
            ConfigError: nothing of this name is loaded.
        """
        with self._lock:
            key = self._keys.pop(name, None)
            if key is None:
                raise ConfigError(f"no adapter {name!r} is loaded", fix=self._nearest(name))
            self._drop_unused(self._entries[key])

    def resolve(self, name: str) -> str:
        """Return the key of a name; a key that is in use is returned as it is.

        Raises:
            RequestError: nothing of this name is loaded.
        """
        with self._lock:
            key = name if name in self._entries else self._keys.get(name)
            if key is None:
                raise RequestError(
                    f"no adapter {name!r} is loaded", fix=self._nearest(name), param=PARAM
                )
            return key

    def hold(self, key: str) -> None:
        """Keep the numbers of a key until ``release``.

        Raises:
            RequestError: they are gone.
        """
        with self._lock:
            if key not in self._entries:
                raise RequestError(f"adapter {key!r} is gone", fix=self._nearest(key), param=PARAM)
            self._entries[key].num_users += 1

    def release(self, key: str) -> None:
        """Let go of a key; a generation that was unloaded goes with its last user."""
        with self._lock:
            entry = self._entries[key]
            assert entry.num_users > 0, key
            entry.num_users -= 1
            self._drop_unused(entry)

    def pairs(self, key: str) -> HostPairs:
        """Return the numbers of a key that is held."""
        return self._entries[key].pairs

    def list(self) -> list[AdapterInfo]:
        """Return what can be named, by name."""
        with self._lock:
            return [self._entries[key].info() for _, key in sorted(self._keys.items())]

    @property
    def keys(self) -> frozenset[str]:
        """All generations whose numbers are kept."""
        with self._lock:
            return frozenset(self._entries)

    def check_invariants(self) -> None:
        """Assert that a name has a generation, and one without a name has users."""
        named = set(self._keys.values())
        assert named <= self._entries.keys()
        for key, entry in self._entries.items():
            assert entry.key == key
            assert entry.num_users >= 0
            assert key in named or entry.num_users > 0, f"{key} is kept for nobody"

    def _drop_unused(self, entry: _Entry) -> None:
        if entry.num_users == 0 and self._keys.get(entry.name) != entry.key:
            del self._entries[entry.key]

    def _nearest(self, name: str) -> str:
        if not self._keys:
            return "load one: load_adapter(name, folder)"
        return did_you_mean(name, self._keys)

    def _check_name(self, name: str, *, replace: bool) -> None:
        if not name or SEPARATOR in name:
            raise ConfigError(
                f"an adapter cannot be called {name!r}", fix=f"use a name without {SEPARATOR!r}"
            )
        if name in self._keys and not replace:
            raise ConfigError(
                f"an adapter {name!r} is loaded already", fix="unload it first, or replace it"
            )

    def _check_adapter(self, name: str, adapter: Adapter) -> None:
        for layer in adapter.blocks:
            if layer not in self.shapes:
                raise UnsupportedError(
                    f"adapter {name!r} changes {layer!r}, which steps of the engine do not call "
                    "as a layer of its own",
                    fix="merge the adapter into the model, or train it on: "
                    + ", ".join(_kinds(self.shapes)),
                )
        check_fits(adapter, self.shapes)
        for layer, blocks in adapter.blocks.items():
            rank = sum(block.rank for block in blocks)
            if rank > self.room[layer]:
                raise ConfigError(
                    f"adapter {name!r} has rank {rank} at {layer!r}, the engine has room for "
                    f"{self.room[layer]}",
                    fix=f"multiply engine.adapters.max_rank by {-(-rank // self.room[layer])}",
                )

    def _pair(self, layer: str, adapter: Adapter) -> tuple[Tensor, Tensor]:
        a_RI, b_OR, scale = concatenated(adapter.blocks[layer], self.shapes[layer][0])
        # Scaled in float32 and rounded once.
        b_OR = b_OR.float() * scale
        return self._host(a_RI), self._host(b_OR)

    def _host(self, tensor: Tensor) -> Tensor:
        copy = tensor.detach().to("cpu", self._dtype, copy=True).contiguous()
        return copy.pin_memory() if self._pinned else copy


def _kinds(layers: Iterable[str]) -> list[str]:
    """Return the layers' names without their numbers."""
    return sorted({layer.split(".", 2)[-1] for layer in layers})
