"""``DeviceSlots``: the adapters a step can compute with, stacked layer by layer.

Every layer that some loaded adapter changes has one stack of pairs, a slot each. A slot holds one
adapter in all stacks. Adapters that are not here are copied from host memory when a step needs
them; the one that was used longest ago gives way.

S slots, R rank, I input width, O rows of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from weft.engine.adapters.update import SlotWeights
from weft.sched.keyed_slots import KeyedSlots

# By layer: A [R, I] and B [O, R] with the scale in it.
HostPairs = Mapping[str, tuple[Tensor, Tensor]]


class DeviceSlots:
    """Room for ``num_slots`` adapters.

    Attributes:
        weights: The stacks by layer.
        num_copies: Adapters that were copied into a slot so far.
    """

    def __init__(self, num_slots: int, dtype: torch.dtype, device: torch.device) -> None:
        self.num_slots = num_slots
        self.weights: dict[str, SlotWeights] = {}
        self.num_copies = 0
        self._dtype = dtype
        self._device = device
        self._keys = KeyedSlots(num_slots)

    @property
    def resident(self) -> frozenset[str]:
        """Keys of the adapters that are here."""
        return frozenset(key.decode() for key in self._keys)

    @property
    def size_bytes(self) -> int:
        """Bytes of all stacks."""
        stacks = (t for weights in self.weights.values() for t in (weights.a_SRI, weights.b_SOR))
        return sum(stack.numel() * stack.element_size() for stack in stacks)

    def reserve(self, layer: str, rank: int, shape: tuple[int, int]) -> None:
        """Make the stack of a layer unless there is one; ``shape`` is (O, I)."""
        if layer in self.weights:
            return
        num_rows, width = shape
        where = {"dtype": self._dtype, "device": self._device}
        self.weights[layer] = SlotWeights(
            torch.zeros(self.num_slots, rank, width, **where),
            torch.zeros(self.num_slots, num_rows, rank, **where),
        )

    def place(self, adapters: Mapping[str, HostPairs]) -> dict[str, int]:
        """Bring adapters in, at most ``num_slots`` at a time; return their slots by key."""
        assert len(adapters) <= self.num_slots, (len(adapters), self.num_slots)
        for key in adapters:
            self._keys.touch(key.encode())
            self._keys.pin(key.encode())
        for key, pairs in adapters.items():
            if key.encode() not in self._keys:
                taken = self._keys.take(key.encode())
                assert taken is not None, "all slots are pinned"
                self._keys.pin(key.encode())
                self._write(taken.slot, pairs)
        self._keys.unpin()
        return {key: self._keys.slot(key.encode()) for key in adapters}

    def drop(self, keys: Iterable[str]) -> None:
        """Let the slots of adapters that nobody uses be taken first."""
        for key in keys:
            self._keys.drop(key.encode())

    def _write(self, slot: int, pairs: HostPairs) -> None:
        self.num_copies += 1
        for layer, weights in self.weights.items():
            a_RI, b_OR = weights.a_SRI[slot], weights.b_SOR[slot]
            a_RI.zero_()
            b_OR.zero_()
            if layer in pairs:
                host_a_RI, host_b_OR = pairs[layer]
                rank = host_a_RI.shape[0]
                a_RI[:rank].copy_(host_a_RI, non_blocking=True)
                b_OR[:, :rank].copy_(host_b_OR, non_blocking=True)

    def check(self) -> None:
        """Assert that each slot has one place only."""
        self._keys.check()
