"""Which blocks are in host memory and on disk, and what has to move before the next step.

Blocks are known by the key of their content, so a block found again after its place on the device
was taken needs no other name. Three levels, one direction down and one up:

- *store*: device to host, when a block is computed or when its place is taken;
- *spill*: host to disk, when a host slot is needed and its block is not on disk yet;
- *fetch* and *load*: disk to host, host to device, when a new sequence begins with that prefix.

Nothing is moved here: the moves gather until the next plan takes them. A plan executes all spills,
then all stores, fetches and loads. Hence whatever a gathered move touches is pinned until the plan
has taken it: a slot to be loaded from must not be a store's target in the same plan, and a slot to
be stored to holds nothing yet that could be spilled.

Keys of a chain are made the newest from the end, so that whatever a tier evicts, the blocks that
are left still begin at the root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from weft.sched.keyed_slots import KeyedSlots
from weft.sched.plan import BlockTransfers
from weft.sched.stats import TierCounters, TierStats
from weft.sched.tier_policy import ReadOrCompute, Tier, TierConfig


class Tiers:
    """Bookkeeping of the host and the disk tier.

    Args:
        config: Sizes and speeds.
        block_bytes: Keys and values of one block over all layers.
        block_size: Positions of one block.
    """

    def __init__(self, config: TierConfig, block_bytes: int, block_size: int) -> None:
        self.config = config
        self.block_size = block_size
        self.policy = ReadOrCompute(config, block_bytes, block_size)
        self.host = KeyedSlots(config.host_bytes // block_bytes)
        self.disk = KeyedSlots(config.disk_bytes // block_bytes)
        self.counters = TierCounters()
        # By target, so that no plan writes a place twice.
        self._spills: dict[int, int] = {}
        self._stores: dict[int, int] = {}
        self._fetches: dict[int, int] = {}
        self._loads: dict[int, int] = {}

    @property
    def writes_through(self) -> bool:
        """Whether blocks are stored when they are computed."""
        return self.config.write_policy == "write_through"

    def __contains__(self, key: bytes) -> bool:
        return key in self.host or key in self.disk

    # Down.

    def store(self, key: bytes, block: int) -> None:
        """Keep the content of a device block, unless it is here already or there is no room."""
        if key in self:
            self.touch((key,))
        elif (slot := self._host_slot(key)) is None:
            self.counters.num_skipped_blocks += 1
        else:
            self._stores[slot] = block
            self.counters.num_stored_blocks += 1

    def touch(self, chain: Sequence[bytes]) -> None:
        """Note that a chain was used: its keys are evicted last, the end of it first."""
        for key in reversed(chain):
            self.host.touch(key)
            self.disk.touch(key)

    # Up.

    def find(self, chain: Iterable[bytes]) -> list[Tier]:
        """Return where the leading blocks of a chain are, up to the first one that is nowhere."""
        found = []
        for key in chain:
            if key in self.host:
                found.append(Tier.HOST)
            elif key in self.disk:
                found.append(Tier.DISK)
            else:
                break
        return found

    def stage(self, chain: Sequence[bytes]) -> int:
        """Pin blocks that were found and fetch those on disk; return how many can be loaded.

        That is fewer than asked for when the host tier has no room left.
        """
        self.touch(chain)
        for key in chain:
            self.host.pin(key)
            self.disk.pin(key)
        for index, key in enumerate(chain):
            if key not in self.host and not self._fetch(key):
                self.counters.num_skipped_blocks += len(chain) - index
                return index
        return len(chain)

    def load(self, chain: Sequence[bytes], blocks: Sequence[int]) -> None:
        """Move staged blocks to these places on the device."""
        for key, block in zip(chain, blocks, strict=True):
            slot = self.host.slot(key)
            self._loads[block] = slot
            from_disk = slot in self._fetches
            self.counters.num_disk_hit_tokens += self.block_size if from_disk else 0
            self.counters.num_host_hit_tokens += 0 if from_disk else self.block_size
        self.counters.num_loaded_blocks += len(chain)

    # Ends.

    def take(self) -> BlockTransfers:
        """Return the moves gathered since the last call; the next plan must carry them."""
        moves = (self._spills, self._stores, self._fetches, self._loads)
        spills, stores, fetches, loads = (
            tuple((source, target) for target, source in move.items()) for move in moves
        )
        for move in moves:
            move.clear()
        self.host.unpin()
        self.disk.unpin()
        return BlockTransfers(spills, stores, fetches, loads)

    def drop(self, chain: Iterable[bytes]) -> None:
        """Forget blocks whose content turned out to be lost; only between two plans."""
        assert not self._loads
        for key in chain:
            self._stores.pop(self._dropped(self.host, key), None)
            self._spills.pop(self._dropped(self.disk, key), None)

    def disable_disk(self) -> None:
        """Go on without the disk tier; only between two plans."""
        assert not self._fetches
        self._spills.clear()
        self.disk = KeyedSlots(0)
        self.counters.num_disk_failures += 1

    def clear(self) -> None:
        """Forget everything, moves to come included."""
        for move in (self._spills, self._stores, self._fetches, self._loads):
            move.clear()
        self.host.clear()
        self.disk.clear()

    def stats(self) -> TierStats:
        """Return sizes now and totals so far."""
        return TierStats(
            num_host_blocks=self.host.num_slots,
            num_used_host_blocks=len(self.host),
            num_disk_blocks=self.disk.num_slots,
            num_used_disk_blocks=len(self.disk),
            counters=replace(self.counters),
        )

    def check(self) -> None:
        """Assert every invariant of the tiers and of the moves to come."""
        self.host.check()
        self.disk.check()
        host_slots = {self.host.slot(key) for key in self.host}
        disk_slots = {self.disk.slot(key) for key in self.disk}
        assert self._stores.keys() | self._fetches.keys() <= host_slots, "a target is nobody's"
        assert not self._stores.keys() & self._fetches.keys(), "a slot gets two blocks"
        assert set(self._loads.values()) <= host_slots, "a load's source was given away"
        assert self._spills.keys() | set(self._fetches.values()) <= disk_slots
        kept = host_slots - self._stores.keys() - self._fetches.keys()
        assert not kept & set(self._spills.values()), "a block that stays is spilled"

    def _fetch(self, key: bytes) -> bool:
        slot = self._host_slot(key)
        if slot is None:
            return False
        self._fetches[slot] = self.disk.slot(key)
        self.counters.num_fetched_blocks += 1
        return True

    def _host_slot(self, key: bytes) -> int | None:
        """Take a host slot for a block; what was there goes to disk."""
        taken = self.host.take(key)
        if taken is None:
            return None
        if taken.evicted is not None:
            self._spill(taken.evicted, taken.slot)
        self.host.pin(key)
        return taken.slot

    def _spill(self, key: bytes, host_slot: int) -> None:
        if key in self.disk or (taken := self.disk.take(key)) is None:
            return
        self.disk.pin(key)
        self._spills[taken.slot] = host_slot
        self.counters.num_spilled_blocks += 1

    @staticmethod
    def _dropped(slots: KeyedSlots, key: bytes) -> int:
        slot = slots.drop(key)
        return -1 if slot is None else slot
