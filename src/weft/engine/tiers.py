"""Moves the blocks of a ``BlockTransfers`` between device, host memory and disk.

A host slot is a row of words that holds one block of every layer of every cache, end to end; a
disk slot is the same row. So whatever a cache keeps per token (keys and values, latents, scales of
quantised types, the keys of a drafting model) moves without this file knowing of it. On a GPU rows
are gathered in a staging buffer of the device first, so that a block crosses in one copy. There the
pool is pinned and copies do not block: they are in the order of the stream that computes, and the
host waits for it only before it touches the pool itself, for the disk.

Nothing here raises for a bad disk or a bad block. A block whose content cannot be had is *spoiled*,
and so is whatever is copied from it; a device block loaded from a spoiled slot is reported, and
the runner leaves its sequences out. A disk that cannot be written is not used again.

Shapes: N blocks that move, W words of one block over all layers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from weft.core.console import format_bytes
from weft.core.errors import ResourceError
from weft.engine.disk import CorruptSlotError, DiskSlots
from weft.nn.kv_cache import KVCache
from weft.sched.plan import BlockTransfers, StepItem
from weft.sched.tier_policy import TierConfig

log = logging.getLogger(__name__)

# Of the device, while blocks cross.
STAGING_BYTES = 64 * 2**20
_WORDS = (torch.int64, torch.int32, torch.int16, torch.uint8)
Moves = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class TierSpace:
    """Slots of the tiers, as many as the scheduler counts.

    Attributes:
        num_host_blocks: In host memory.
        num_disk_blocks: On disk.
        disk_path: Folder for them; none is the system's for temporary files.
    """

    num_host_blocks: int
    num_disk_blocks: int = 0
    disk_path: Path | None = None

    @classmethod
    def of(cls, config: TierConfig, block_bytes: int) -> TierSpace:
        """Return how many blocks fit."""
        num_host_blocks = config.host_bytes // block_bytes
        return cls(num_host_blocks, config.disk_bytes // block_bytes, config.disk_path)


class BlockMover:
    """Executes block transfers over all caches of one runner; copies on write, too.

    Attributes:
        caches: Indexed by the same blocks; they may get new tensors between two steps.
        disk: The disk tier, if there is one.
        disk_error: Why the disk tier is not used any more; none while it works.
        staged: Whether blocks go through a staging buffer on their device.

    Args:
        caches: The target's and those of drafting models.
        space: Slots of the tiers; none moves blocks within the device only.

    Raises:
        ResourceError: there is not that much memory or disk space.
    """

    def __init__(self, caches: Sequence[KVCache], space: TierSpace | None = None) -> None:
        self.caches = caches
        self.disk_error: str | None = None
        self.staged = any(row.is_cuda for row in _rows(caches))
        self._spoiled: dict[int, str] = {}
        self._host_NW: Tensor | None = None
        self.disk: DiskSlots | None = None
        if space is not None:
            self._open(space)

    @property
    def row_bytes(self) -> int:
        """Bytes of one block over all layers of all caches."""
        return block_bytes(self.caches)

    @property
    def host_bytes(self) -> int:
        """Bytes of the host pool."""
        return 0 if self._host_NW is None else self._host_NW.nbytes

    def execute(self, transfers: BlockTransfers) -> dict[int, str]:
        """Move blocks in the order of the kinds.

        Returns:
            Device blocks whose content could not be had, each with the reason.
        """
        if not any(transfers):
            return {}
        self._wait_for_pool(transfers)
        self._spill(transfers.spills)
        # Should a copy raise, the step fails, but the scheduler goes on and counts on its targets.
        for _, slot in (*transfers.stores, *transfers.fetches):
            self._spoiled[slot] = "it was not copied, as a step failed"
        self._store(transfers.stores)
        self._fetch(transfers.fetches)
        lost = self._load(transfers.loads)
        self._copy(transfers.copies)
        lost.update({new: lost[old] for old, new in transfers.copies if old in lost})
        return lost

    def close(self) -> None:
        """Give memory and disk space back. Nothing can be moved between tiers afterwards."""
        self._host_NW = None
        if self.disk is not None:
            self.disk.close()
            self.disk = None

    def _open(self, space: TierSpace) -> None:
        words = self._word_rows()
        num_words = sum(row.shape[1] for row in words)
        try:
            self._host_NW = torch.empty(
                (space.num_host_blocks, num_words), dtype=words[0].dtype, pin_memory=self.staged
            )
        except RuntimeError as error:
            raise ResourceError(
                f"the host tier needs {format_bytes(space.num_host_blocks * self.row_bytes)}, "
                "more than is free",
                fix="lower engine.tiers.host_bytes",
            ) from error
        if space.num_disk_blocks > 0:
            self.disk = DiskSlots(space.disk_path, space.num_disk_blocks, self.row_bytes)

    def _word_rows(self) -> list[Tensor]:
        """Return the same bytes in words as wide as every row allows."""
        rows = list(_rows(self.caches))
        if not rows:
            return []
        sizes = [row.shape[1] * row.element_size() for row in rows]
        word = next(word for word in _WORDS if all(size % word.itemsize == 0 for size in sizes))
        return [row.view(word) for row in rows]

    def _store(self, moves: Moves) -> None:
        rows = self._word_rows() if moves else []
        for part in self._parts(moves):
            blocks_N, slots_N = torch.tensor(part, device=rows[0].device).unbind(1)
            if self.staged:
                staged_NW, order_N = self._staging(rows, len(part))
                _gather(rows, blocks_N, staged_NW, order_N)
                for (_, slot), staged_W in zip(part, staged_NW, strict=True):
                    self._pool_NW[slot].copy_(staged_W, non_blocking=True)
            else:
                _gather(rows, blocks_N, self._pool_NW, slots_N)
            for _, slot in part:
                del self._spoiled[slot]

    def _load(self, moves: Moves) -> dict[int, str]:
        rows = self._word_rows() if moves else []
        for part in self._parts(moves):
            slots_N, blocks_N = torch.tensor(part, device=rows[0].device).unbind(1)
            if self.staged:
                staged_NW, order_N = self._staging(rows, len(part))
                for (slot, _), staged_W in zip(part, staged_NW, strict=True):
                    staged_W.copy_(self._pool_NW[slot], non_blocking=True)
                _scatter(staged_NW, order_N, rows, blocks_N)
            else:
                _scatter(self._pool_NW, slots_N, rows, blocks_N)
        return {block: self._spoiled[slot] for slot, block in moves if slot in self._spoiled}

    def _staging(self, rows: Sequence[Tensor], num_blocks: int) -> tuple[Tensor, Tensor]:
        staged_NW = rows[0].new_empty((num_blocks, self._pool_NW.shape[1]))
        return staged_NW, torch.arange(num_blocks, device=staged_NW.device)

    def _copy(self, moves: Moves) -> None:
        for row in self._word_rows() if moves else ():
            old_N, new_N = torch.tensor(moves, device=row.device).unbind(1)
            row.index_copy_(0, new_N, row.index_select(0, old_N))

    def _parts(self, moves: Moves) -> Iterator[Moves]:
        """Cut moves so that the staging buffer stays small."""
        num_blocks = max(1, STAGING_BYTES // max(self.row_bytes, 1)) if moves else 1
        for start in range(0, len(moves), num_blocks):
            yield moves[start : start + num_blocks]

    @property
    def _pool_NW(self) -> Tensor:
        assert self._host_NW is not None, "a block goes to a tier that does not exist"
        return self._host_NW

    def _spill(self, moves: Moves) -> None:
        for host_slot, disk_slot in moves:
            if self.disk is None:
                return
            self.disk.spoil(disk_slot)
            if host_slot in self._spoiled:
                continue
            try:
                self.disk.write(disk_slot, self._bytes(host_slot))
            except OSError as error:
                self._give_up_disk(f"cannot write {self.disk.folder}: {error}")

    def _fetch(self, moves: Moves) -> None:
        for disk_slot, host_slot in moves:
            try:
                if self.disk is None:
                    raise CorruptSlotError(f"the disk tier is off: {self.disk_error}")
                self.disk.read(disk_slot, self._bytes(host_slot))
            except (OSError, CorruptSlotError) as error:
                self._spoiled[host_slot] = str(error)
            else:
                del self._spoiled[host_slot]

    def _bytes(self, slot: int) -> memoryview:
        return self._pool_NW[slot].view(torch.uint8).numpy().data

    def _give_up_disk(self, reason: str) -> None:
        assert self.disk is not None
        self.disk.close()
        self.disk = None
        self.disk_error = reason
        log.warning("the disk tier of the KV cache is off from now on: %s", reason)

    def _wait_for_pool(self, transfers: BlockTransfers) -> None:
        """Let copies to and from the pool end before the host itself reads or writes it."""
        if self._host_NW is None or not self._host_NW.is_pinned():
            return
        if transfers.spills or transfers.fetches:
            torch.cuda.current_stream().synchronize()


def _gather(rows: Sequence[Tensor], blocks_N: Tensor, target_NW: Tensor, places_N: Tensor) -> None:
    """Lay the parts of blocks end to end, each block in its place of the target."""
    parts = target_NW.split([row.shape[1] for row in rows], dim=1)
    for row, part in zip(rows, parts, strict=True):
        part.index_copy_(0, places_N, row.index_select(0, blocks_N))


def _scatter(source_NW: Tensor, places_N: Tensor, rows: Sequence[Tensor], blocks_N: Tensor) -> None:
    """Put the parts of blocks back where each layer keeps them."""
    parts = source_NW.split([row.shape[1] for row in rows], dim=1)
    for row, part in zip(rows, parts, strict=True):
        row.index_copy_(0, blocks_N, part.index_select(0, places_N))


def block_bytes(caches: Iterable[KVCache]) -> int:
    """Return the bytes of one block over all layers of all caches."""
    return sum(row.shape[1] * row.element_size() for row in _rows(caches))


def _rows(caches: Iterable[KVCache]) -> Iterator[Tensor]:
    """Yield everything kept per token as [num_blocks, elements of one block]."""
    for cache in caches:
        for layer in cache.tokens:
            for stored in layer.values():
                if stored.numel():
                    yield stored.view(cache.num_blocks, -1)


class LostSequences:
    """Sequences that miss blocks, from the step that finds out to the plan that takes them back.

    Where steps overlap, the next step is planned before the scheduler hears of the loss, and has
    items that go on where nothing was computed.
    """

    def __init__(self) -> None:
        self._reasons: dict[int, str] = {}

    def reasons(
        self, items: Sequence[StepItem], lost_blocks: dict[int, str], block_size: int
    ) -> dict[int, str]:
        """Return whose items cannot be computed, and why."""
        for item in items if lost_blocks else ():
            for block in item.blocks[: -(-item.start // block_size)]:
                if block in lost_blocks:
                    self._reasons[item.id] = lost_blocks[block]
        if not self._reasons:
            return {}
        return {item.id: self._reasons[item.id] for item in items if item.id in self._reasons}

    def release(self, ids: Iterable[int]) -> None:
        """Forget sequences that gave way or ended."""
        for id in ids:
            self._reasons.pop(id, None)
