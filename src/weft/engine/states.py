"""Which slot of the recurrent states each running sequence has, and copies of them.

A sequence takes a slot with its first step and gives it back when it ends or is preempted; the
next owner starts at position 0, where states start from zero, so nothing has to be cleared. Or it
starts behind a cached prefix with a snapshot: which slot of the snapshots holds what is decided by
``weft.sched.snapshots``.

The cache's slots are, in this order, those of sequences, one for scratch, those of snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from weft.nn.kv_cache import KVCache
from weft.sched.plan import StateTransfers


class StateSlots:
    """Hands out slots 0 .. ``num_slots`` - 1.

    Attributes:
        scratch: One more slot, for rows whose states nobody reads.
    """

    def __init__(self, num_slots: int) -> None:
        self.scratch = num_slots
        self._free = list(range(num_slots - 1, -1, -1))
        self._slots: dict[int, int] = {}

    def __len__(self) -> int:
        """Return how many sequences have a slot."""
        return len(self._slots)

    def take(self, ids: Iterable[int]) -> list[int]:
        """Return the slots of these sequences, new ones for those that have none."""
        return [self._slots[id] if id in self._slots else self._new(id) for id in ids]

    def release(self, ids: Iterable[int]) -> None:
        """Take back the slots of sequences that ended or were preempted, if they have any."""
        for id in ids:
            slot = self._slots.pop(id, None)
            if slot is not None:
                self._free.append(slot)

    def shadow(self, cache: KVCache, id: int) -> None:
        """Give the scratch slot a sequence's state, so that copies of its token compute the same.

        They write where it writes, and a layer of attention behind a recurrent one keeps what
        depends on the state.
        """
        copy_states(cache, [(self._slots[id], self.scratch)])

    def restore(self, cache: KVCache, transfers: StateTransfers) -> None:
        """Give sequences, those that have a slot, the states of their snapshots."""
        copy_states(
            cache,
            [
                (self._snapshot(snapshot), self._slots[id])
                for snapshot, id in transfers.restores
                if id in self._slots
            ],
        )

    def save(self, cache: KVCache, transfers: StateTransfers, ids: Iterable[int]) -> None:
        """Copy the states of sequences that were computed into their snapshots."""
        computed = frozenset(ids)
        copy_states(
            cache,
            [
                (self._slots[id], self._snapshot(snapshot))
                for id, snapshot in transfers.saves
                if id in computed
            ],
        )

    def _snapshot(self, number: int) -> int:
        return self.scratch + 1 + number

    def _new(self, id: int) -> int:
        assert self._free, "more sequences run than the scheduler may run"
        self._slots[id] = self._free.pop()
        return self._slots[id]


def copy_states(cache: KVCache, moves: Sequence[tuple[int, int]]) -> None:
    """Copy all layers' states between slots, given as (from, to)."""
    if not moves:
        return
    for layer in cache.states:
        for stored in layer.values():
            old_N, new_N = torch.tensor(moves, device=stored.device).unbind(1)
            stored.index_copy_(0, new_N, stored.index_select(0, old_N))
