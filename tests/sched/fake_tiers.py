"""Tiers and snapshots without bytes: what a runner would find in each slot, or has lost."""

from __future__ import annotations

from typing import Generic, TypeVar

from weft.sched.plan import BlockTransfers, StateTransfers, StepItem, StepPlan

EntryT = TypeVar("EntryT")
Block = list[EntryT]


class FakeTiers(Generic[EntryT]):
    """Moves blocks in the order of the kinds; None in a slot is content that cannot be had.

    Attributes:
        disk_is_full: Whether the next write fails.
        disk_error: Why the disk is not used any more.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.host: dict[int, Block[EntryT] | None] = {}
        self.disk: dict[int, Block[EntryT] | None] = {}
        self.disk_is_full = False
        self.disk_error: str | None = None

    def move(self, blocks: BlockTransfers, cache: dict[int, EntryT]) -> set[int]:
        """Execute the moves over a cache by slot; return the device blocks that were lost."""
        for moves in blocks:
            targets = [target for _, target in moves]
            assert len(targets) == len(set(targets)), "a place is the target of two moves"
        for host, disk in blocks.spills:
            self._spill(host, disk)
        for block, host in blocks.stores:
            self.host[host] = [cache[slot] for slot in self._slots(block)]
        for disk, host in blocks.fetches:
            self.host[host] = self.disk.get(disk)
        lost = {block for host, block in blocks.loads if not self._load(host, block, cache)}
        for source, target in blocks.copies:
            for old, new in zip(self._slots(source), self._slots(target), strict=True):
                if old in cache:
                    cache[new] = cache[old]
        return lost | {target for source, target in blocks.copies if source in lost}

    def corrupt(self, slots: list[int]) -> None:
        """Let these disk slots hold something else than was written."""
        for slot in slots:
            self.disk[slot] = None

    def _spill(self, host: int, disk: int) -> None:
        if self.disk_is_full and self.disk_error is None:
            self.disk_error = "no space left"
            self.disk.clear()
        if self.disk_error is None:
            self.disk[disk] = self.host[host]

    def _load(self, host: int, block: int, cache: dict[int, EntryT]) -> bool:
        content = self.host[host]
        if content is not None:
            cache.update(zip(self._slots(block), content, strict=True))
        return content is not None

    def _slots(self, block: int) -> range:
        return range(block * self.block_size, (block + 1) * self.block_size)


class FakeStates:
    """The state of each running sequence, here the fold of its tokens, and the snapshots."""

    def __init__(self) -> None:
        self._running: dict[int, int] = {}
        self._snapshots: dict[int, int] = {}

    def begin(self, plan: StepPlan) -> None:
        for id_ in (*plan.preempted, *plan.finished):
            self._running.pop(id_, None)
        for snapshot, id_ in plan.states.restores:
            self._running[id_] = self._snapshots[snapshot]

    def advance(self, item: StepItem, states: list[int]) -> None:
        """Continue a sequence's state over an item; `states` has the right one of each position."""
        if item.start > 0:
            assert self._running.get(item.id) == states[item.start - 1], "another position's state"
        self._running[item.id] = states[item.start + len(item.tokens) - 1]

    def end(self, transfers: StateTransfers, items: list[StepItem]) -> None:
        targets = [snapshot for _, snapshot in transfers.saves]
        assert len(targets) == len(set(targets)), "a snapshot is saved twice in one step"
        computed = {item.id for item in items}
        for id_, snapshot in transfers.saves:
            if id_ in computed:
                self._snapshots[snapshot] = self._running[id_]
