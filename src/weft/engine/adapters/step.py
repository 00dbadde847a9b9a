"""``StepAdapters``: adapters as the runner and the engine core see them.

A step computes with at most as many adapters as there are slots. One whose items have more of them
is cut into passes, each with its own items; attention reaches other passes through the cache only
by sequences, so the cut changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from weft.adapt.adapter import Adapter
from weft.engine.adapters.config import AdapterConfig
from weft.engine.adapters.hooks import UpdateHooks
from weft.engine.adapters.reach import num_parts, reachable_shapes
from weft.engine.adapters.slots import DeviceSlots
from weft.engine.adapters.store import AdapterStore
from weft.engine.adapters.update import RowGroups
from weft.models.decoder import Decoder
from weft.sched.plan import NewSequence, StepItem


class StepAdapters:
    """The adapters of one engine.

    Attributes:
        store: Names, generations and host copies.
        slots: What is on the device.

    Args:
        model: Whose layers get updates.
        config: How many adapters, and how large.
        deterministic: A row's bits do not depend on the others in its step.
    """

    def __init__(
        self, model: Decoder, config: AdapterConfig, *, deterministic: bool = False
    ) -> None:
        pinned = model.device.type == "cuda"
        shapes, parts = reachable_shapes(model), num_parts(model)
        room = {layer: config.max_rank * parts.get(layer, 1) for layer in shapes}
        self.store = AdapterStore(shapes, room, model.dtype, pinned=pinned)
        self.slots = DeviceSlots(config.max_loaded, model.dtype, model.device)
        self._device = model.device
        self._stable = deterministic
        self._hooks = UpdateHooks(model, self.slots.weights)
        self._keys: dict[int, str] = {}

    # Between steps.

    def load(self, name: str, adapter: Adapter, *, source: str = "", replace: bool = False) -> str:
        """Keep an adapter under a name and make room for the layers it changes; return its key.

        Raises:
            ConfigError, UnsupportedError, CheckpointError: see ``AdapterStore.load``.
        """
        self.store.check(name, adapter, replace=replace)
        for layer in adapter.blocks:
            self.slots.reserve(layer, self.store.room[layer], self.store.shapes[layer])
            self._hooks.add(layer)
        return self.store.load(name, adapter, source=source, replace=replace)

    def close(self) -> None:
        """Take the hooks off the model."""
        self._hooks.remove()

    # In the runner.

    def take_in(self, sequence: NewSequence) -> None:
        """Remember what a sequence runs with.

        Raises:
            RequestError: it ended and its adapter was unloaded before its first step.
        """
        if sequence.adapter:
            self.store.hold(sequence.adapter)
            self._keys[sequence.id] = sequence.adapter

    def forget(self, ids: Iterable[int]) -> None:
        """Let go of what sequences that ended ran with."""
        released = [self._keys.pop(id) for id in ids if id in self._keys]
        for key in released:
            self.store.release(key)
        if released:
            self.slots.drop(self.slots.resident - self.store.keys)

    def passes(self, items: Sequence[StepItem]) -> list[list[int]]:
        """Return the places of the items of each pass; one pass unless adapters are too many."""
        keys = list(dict.fromkeys(self._keys.get(item.id, "") for item in items))
        adapted = [key for key in keys if key]
        if len(adapted) <= self.slots.num_slots:
            return [list(range(len(items)))]
        # The rows without an adapter go with the first pass, those that are here go first.
        adapted.sort(key=lambda key: key not in self.slots.resident)
        number = {key: index // self.slots.num_slots for index, key in enumerate(adapted)}
        parts: dict[int, list[int]] = {}
        for place, item in enumerate(items):
            parts.setdefault(number.get(self._keys.get(item.id, ""), 0), []).append(place)
        return [parts[index] for index in sorted(parts)]

    def any_in(self, items: Iterable[StepItem]) -> bool:
        """Return whether some item runs with an adapter."""
        return bool(self._keys) and any(item.id in self._keys for item in items)

    @contextlib.contextmanager
    def active(self, items: Sequence[StepItem]) -> Iterator[None]:
        """Let the model's layers add the updates of these items, which lie end to end."""
        keys = {item.id: self._keys[item.id] for item in items if item.id in self._keys}
        slots = self.slots.place({key: self.store.pairs(key) for key in keys.values()})
        slots_T = [
            slots[keys[item.id]] if item.id in keys else -1
            for item in items
            for _ in range(item.num_tokens)
        ]
        num_slots = self.slots.num_slots
        groups = RowGroups.of(slots_T, num_slots, self._device, stable=self._stable)
        with self._hooks.active(groups):
            yield
