"""Copies of recurrent states at known positions, so that models with states share prefixes.

A state belongs to one position, so a cached prefix helps only up to a position whose state was
kept. Every `interval` positions a step's chunk ends, and the state there is copied behind the step
into a slot of its own. A prefix that is found later is used up to the last position with a copy,
and the copy is put back before the step. The next chunks are cut where they were cut the first
time, so the numbers are the same to the bit.

Whether copies are cheaper than keys and values is arithmetic: at 128 tokens a state of a Gated
DeltaNet layer costs 8,576 bytes per token, an attention layer of the same model 2,048
(``weft.plan.inference.states``).

Copies are known by the key of the block that ends at their position. They live and die like blocks:
the copy that was not used for longest gives way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from weft.core.errors import ConfigError
from weft.sched.keyed_slots import KeyedSlots
from weft.sched.plan import StateTransfers
from weft.sched.stats import SnapshotCounters


@dataclass(frozen=True, kw_only=True)
class SnapshotConfig:
    """Copies of recurrent states for the prefix cache.

    Attributes:
        interval_tokens: Positions between two copies; a step computes no more of one sequence.
        num_slots: Most copies; none is as many as sequences run at once, or what fits beside them.
    """

    interval_tokens: int = 128
    num_slots: int | None = None

    def __post_init__(self) -> None:
        if self.interval_tokens < 1:
            raise ConfigError(f"interval_tokens is {self.interval_tokens}", fix="use at least 1")
        if self.num_slots is not None and self.num_slots < 0:
            raise ConfigError(f"num_slots is {self.num_slots}", fix="use 0 or more")


class Snapshots:
    """Bookkeeping of `num_slots` copies.

    A copy is *pending* from the plan that makes it until that plan is settled: only then is its
    content certain, and, where steps overlap, the key of its position known.

    Args:
        num_slots: Most copies.
        interval: Positions between two copies, whole blocks.
        block_size: Positions per block.
    """

    def __init__(self, num_slots: int, interval: int, block_size: int) -> None:
        assert num_slots > 0
        assert interval % block_size == 0
        self.interval = interval
        self.block_size = block_size
        self.slots = KeyedSlots(num_slots)
        self.counters = SnapshotCounters()
        self._pending: dict[tuple[int, int], bytes] = {}
        self._restores: list[tuple[int, int]] = []
        self._saves: list[tuple[int, int]] = []

    def stops(self, chain: Sequence[bytes]) -> tuple[int, ...]:
        """Return after how many blocks of a chain there is a copy, in order."""
        step = self.interval // self.block_size
        ends = range(step, len(chain) + 1, step)
        return tuple(end for end in ends if chain[end - 1] in self.slots)

    def clip(self, start: int, end: int) -> int:
        """Return where a chunk of positions `start` .. `end - 1` ends at the latest."""
        return min(end, start - start % self.interval + self.interval)

    def restore(self, key: bytes, sequence_id: int) -> None:
        """Begin a sequence with the copy of a key."""
        self.slots.touch(key)
        self._restores.append((self.slots.slot(key), sequence_id))
        self.counters.num_restored += 1

    def save(self, sequence_id: int, end: int, key: bytes | None) -> None:
        """Copy a sequence's state at position `end` behind this step, unless there is such a copy.

        Args:
            sequence_id: Whose.
            end: Positions it has computed then.
            key: Of the block that ends there; None while its last token is not known.
        """
        # One planned before the sequence gave way may still be on its way.
        if end % self.interval or (sequence_id, end) in self._pending:
            return
        if key is not None and key in self.slots:
            self.slots.touch(key)
            return
        # Until its key is certain, the slot is held in the name of whoever fills it.
        name = f"{sequence_id}:{end}".encode()
        taken = self.slots.take(name)
        if taken is None:
            self.counters.num_skipped += 1
            return
        self.slots.pin(name)
        self._pending[sequence_id, end] = name
        self._saves.append((sequence_id, taken.slot))

    def settle(self, sequence_id: int, end: int, key: bytes | None) -> None:
        """Enter a pending copy under its key; without one it is not to be used."""
        name = self._pending.pop((sequence_id, end), None)
        if name is None:
            return
        if key is None or key in self.slots:
            self.slots.drop(name)
            return
        self.slots.rename(name, key)
        self.counters.num_saved += 1

    def drop(self, key: bytes) -> None:
        """Forget the copy of a key, if there is one."""
        self.slots.drop(key)

    def take(self) -> StateTransfers:
        """Return the moves gathered since the last call; the next plan must carry them."""
        moves = StateTransfers(tuple(self._restores), tuple(self._saves))
        self._restores.clear()
        self._saves.clear()
        return moves

    def clear(self) -> None:
        """Forget every copy that is not pending."""
        for key in [key for key in self.slots if key not in self._pending.values()]:
            self.slots.drop(key)

    def stats(self) -> SnapshotCounters:
        """Return the totals so far, as a copy."""
        return replace(self.counters)

    def check(self) -> None:
        """Assert that pending copies, and no others, hold their slots against everyone."""
        self.slots.check()
        names = set(self._pending.values())
        assert len(names) == len(self._pending)
        assert names <= set(self.slots)
        assert self.slots.pinned == names
