"""Slots that keep content by key: who is where, and whose place the next one takes.

What the host tier, the disk tier and the snapshots of recurrent states have in common. Every
operation is O(1) but for ``take``, which steps over pinned keys; those are the newest ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple


class Taken(NamedTuple):
    """A slot that has a new key, and the key whose content it still holds."""

    slot: int
    evicted: bytes | None


class KeyedSlots:
    """`num_slots` slots, each blank or holding the content of one key; the oldest key gives way."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._blank = list(range(num_slots - 1, -1, -1))
        self._slots: OrderedDict[bytes, int] = OrderedDict()
        self._pinned: set[bytes] = set()

    def __len__(self) -> int:
        """Return how many slots hold something."""
        return len(self._slots)

    def __contains__(self, key: bytes) -> bool:
        return key in self._slots

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the keys, the one that gives way first at the front."""
        return iter(self._slots)

    @property
    def pinned(self) -> frozenset[bytes]:
        """Keys that do not give way."""
        return frozenset(self._pinned)

    def slot(self, key: bytes) -> int:
        """Return where the content of a key is."""
        return self._slots[key]

    def touch(self, key: bytes) -> None:
        """Make a key, if it is here, the last one to give way."""
        if key in self._slots:
            self._slots.move_to_end(key)

    def pin(self, key: bytes) -> None:
        """Keep a key, if it is here, until `unpin`."""
        if key in self._slots:
            self._pinned.add(key)

    def unpin(self) -> None:
        """Let go of every pinned key."""
        self._pinned.clear()

    def take(self, key: bytes) -> Taken | None:
        """Give a key that is not here a blank slot or the oldest one; None if all are pinned."""
        assert key not in self._slots
        if self._blank:
            taken = Taken(self._blank.pop(), None)
        else:
            oldest = next((old for old in self._slots if old not in self._pinned), None)
            if oldest is None:
                return None
            taken = Taken(self._slots.pop(oldest), oldest)
        self._slots[key] = taken.slot
        return taken

    def rename(self, key: bytes, new: bytes) -> None:
        """Let the slot of a key belong to another one, unpinned and the last to give way."""
        assert new not in self._slots
        self._slots[new] = self._slots.pop(key)
        self._pinned.discard(key)

    def drop(self, key: bytes) -> int | None:
        """Forget a key; return the slot it had, if it was here."""
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._pinned.discard(key)
            self._blank.append(slot)
        return slot

    def clear(self) -> None:
        """Forget every key."""
        self._blank.extend(self._slots.values())
        self._slots.clear()
        self._pinned.clear()

    def check(self) -> None:
        """Assert that each slot is exactly one of blank and held, and that pinned keys are here."""
        assert sorted((*self._blank, *self._slots.values())) == list(range(self.num_slots))
        assert self._pinned <= self._slots.keys()
