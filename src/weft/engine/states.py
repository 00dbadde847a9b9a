"""Which slot of the recurrent states each running sequence has.

A sequence takes a slot with its first step and gives it back when it ends or is preempted; the
next owner starts at position 0, where states start from zero, so nothing has to be cleared.
"""

from __future__ import annotations

from collections.abc import Iterable


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

    def _new(self, id: int) -> int:
        assert self._free, "more sequences run than the scheduler may run"
        self._slots[id] = self._free.pop()
        return self._slots[id]
