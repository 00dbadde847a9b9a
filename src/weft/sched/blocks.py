"""Physical blocks of the KV cache: reference counts and a free list that doubles as the cache.

A block is *used* while somebody references it, *cached* when nobody does but its content may be
wanted again, and *blank* otherwise. Blank blocks are handed out first, then cached ones, least
recently released first. Every operation is O(1): the cached ones are an ordered dictionary, from
which a block in the middle can be taken when a prefix hit revives it.
"""

from __future__ import annotations

from collections import OrderedDict, deque


class BlockPool:
    """Counts references to `num_blocks` blocks and decides which free one is used next."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._num_references = [0] * num_blocks
        self._blank: deque[int] = deque(range(num_blocks))
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_free(self) -> int:
        """Blocks that can be handed out: blank or cached."""
        return len(self._blank) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Free blocks that still hold content worth keeping."""
        return len(self._cached)

    @property
    def free_order(self) -> tuple[int, ...]:
        """Free blocks in the order they will be handed out."""
        return (*self._blank, *self._cached)

    def num_references(self, block: int) -> int:
        """Return how many holders `block` has."""
        return self._num_references[block]

    def allocate(self) -> int:
        """Take the next free block; its old content is gone."""
        block = self._blank.popleft() if self._blank else self._cached.popitem(last=False)[0]
        self._num_references[block] = 1
        return block

    def acquire(self, block: int) -> None:
        """Add a reference to a used or cached block."""
        if self._num_references[block] == 0:
            del self._cached[block]
        self._num_references[block] += 1

    def release(self, block: int, *, keep: bool) -> None:
        """Drop a reference. With the last one the block becomes cached if `keep`, else blank.

        Holders release a chain from its end, so that a block is reused before those it extends.
        """
        assert self._num_references[block] > 0, f"block {block} is released twice"
        self._num_references[block] -= 1
        if self._num_references[block] == 0:
            if keep:
                self._cached[block] = None
            else:
                self._blank.appendleft(block)

    def drop_cached(self) -> None:
        """Turn every cached block into a blank one."""
        self._blank.extend(self._cached)
        self._cached.clear()

    def check(self) -> None:
        """Assert that each block is exactly one of used, cached and blank."""
        assert all(count >= 0 for count in self._num_references)
        unused = [block for block, count in enumerate(self._num_references) if count == 0]
        assert sorted(self.free_order) == unused
