"""Block tables of sequences over the pool and the prefix tree.

Invariants, all asserted by `KVManager.check`:

- A block's reference count is the number of block tables that list it.
- A cached block is full, computed, and never written again.
- Who holds a block of the tree holds the blocks before it, too. Hence no block is evicted before
  those that extend it, and a free list in release order evicts leaves first.

The last one needs care when two sequences compute the same block at the same time: the second one
to commit it takes over the first one's block and gives its own back.

What is evicted may live on in the tiers below (`sched.tiers`): a prefix is matched in the tree,
then on the host and on disk, and what is read from there is committed like what was computed. A
model with states goes back to the last position whose states were kept (`sched.snapshots`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from weft.sched.blocks import BlockPool
from weft.sched.plan import BlockTransfers, StateTransfers
from weft.sched.prefix import PrefixTree, block_key, root_key
from weft.sched.snapshots import Snapshots
from weft.sched.tiers import Tiers

_NO_BLOCKS, _NO_STATES = BlockTransfers(), StateTransfers()


@dataclass(slots=True)
class BlockTable:
    """Where one sequence's keys and values are.

    Attributes:
        salt: Prefixes are shared only among equal salts.
        adapter: And equal adapters.
        blocks: Physical blocks in order of position; in a ring they repeat.
        num_committed: How many of them, from the start, are in the prefix tree.
        weight_version: Of the weights that computed them.
        keys: Chained keys of full blocks, as far as they were needed; `keys[0]` is the root.
    """

    salt: str = ""
    adapter: str = ""
    blocks: tuple[int, ...] = ()
    num_committed: int = 0
    weight_version: int = -1
    keys: list[bytes] = field(default_factory=list)


class KVManager:
    """Gives blocks to sequences and takes them back, reusing computed prefixes.

    Args:
        num_blocks: Size of the pool.
        block_size: Positions per block.
        enable_prefix_cache: Keep full blocks for sequences that begin alike.
        ring_blocks: Most blocks of one sequence: longer ones write over their oldest block, which
            no layer sees any more (rolling buffer, Jiang et al. 2023, arXiv:2310.06825). What is
            written over cannot be kept for others, so a ring excludes the prefix cache.
        sink_blocks: Blocks at a sequence's start that are not part of its ring.
        tiers: Where blocks of the tree go when their place is taken.
        snapshots: Copies of states; prefixes are used only up to one of them.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        enable_prefix_cache: bool = True,
        ring_blocks: int | None = None,
        sink_blocks: int = 0,
        tiers: Tiers | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        assert ring_blocks is None or not enable_prefix_cache
        assert enable_prefix_cache or (tiers is None and snapshots is None)
        self.block_size = block_size
        self.enable_prefix_cache = enable_prefix_cache
        self.ring_blocks = ring_blocks
        self.sink_blocks = sink_blocks
        self.tiers = tiers
        self.snapshots = snapshots
        self.weight_version = 0
        self.pool = BlockPool(num_blocks)
        self.tree = PrefixTree()

    def num_blocks_for(self, num_tokens: int) -> int:
        """Return how many blocks hold `num_tokens` positions."""
        return -(-num_tokens // self.block_size)

    def begin(
        self, table: BlockTable, tokens: Sequence[int], *, reserve: int = 0, reuse: bool = True
    ) -> int | None:
        """Give an empty table blocks for all `tokens`, cached ones first.

        At least one token is left to compute, so that there are logits to draw from; all are
        without `reuse`.

        Returns:
            The number of tokens whose keys and values are already there, or None (and nothing
            changed) when fewer than `reserve` blocks would stay free.
        """
        assert not table.blocks, "the table already has blocks"
        cached = self._match(table, tokens if reuse else tokens[:1])
        below = self._find_below(table, tokens if reuse else tokens[:1], len(cached))
        num_blocks = self.num_blocks_for(len(tokens))
        # With snapshots this many are of use even if the host has no room for what is on disk.
        sure = cached[: self._num_usable(table, len(cached))]
        num_new = self._num_held(num_blocks) - len(sure)
        num_revived = sum(1 for block in sure if self.pool.num_references(block) == 0)
        if self.pool.num_free - num_revived - num_new < reserve:
            return None
        num_staged = self.tiers.stage(below) if self.tiers is not None else 0
        num_reused = self._num_usable(table, len(cached) + num_staged)
        table.blocks = tuple(cached[:num_reused])
        for block in table.blocks:
            self.pool.acquire(block)
        table.num_committed = len(table.blocks)
        self._extend(table, num_blocks)
        if self.tiers is not None and num_reused > table.num_committed:
            read = slice(table.num_committed, num_reused)
            self.tiers.load(table.keys[1:][read], table.blocks[read])
        return num_reused * self.block_size

    def num_cached_tokens(self, table: BlockTable, tokens: Sequence[int]) -> int:
        """Return how many of `tokens` a sequence would find on the device if it began now."""
        return len(self._match(table, tokens)) * self.block_size

    def grow(self, table: BlockTable, num_tokens: int) -> bool:
        """Extend a table to `num_tokens` positions; False (and nothing changed) if none is free."""
        if num_tokens <= len(table.blocks) * self.block_size:
            return True
        num_blocks = self.num_blocks_for(num_tokens)
        if self._num_held(num_blocks) - len(self._held(table)) > self.pool.num_free:
            return False
        self._extend(table, num_blocks)
        return True

    def commit(self, table: BlockTable, tokens: Sequence[int], num_computed: int) -> None:
        """Enter the blocks that `num_computed` tokens fill into the prefix tree.

        Blocks computed with older weights stay with their sequence but are not entered.
        """
        num_full = num_computed // self.block_size
        if num_full <= table.num_committed or not self.enable_prefix_cache:
            return
        if table.weight_version != self.weight_version:
            return
        self._extend_keys(table, tokens, num_full)
        for index in range(table.num_committed, num_full):
            self._commit_block(table, tokens, index)
        table.num_committed = num_full

    def truncate(self, table: BlockTable, num_tokens: int) -> None:
        """Give back the blocks beyond `num_tokens` positions; those in the tree must remain."""
        keep = self.num_blocks_for(num_tokens)
        if keep >= len(table.blocks):
            return
        assert num_tokens >= table.num_committed * self.block_size
        self._release(self._held(table)[keep:])
        table.blocks = table.blocks[:keep]

    def free(self, table: BlockTable) -> None:
        """Give everything back. What is in the prefix tree stays there until it is needed."""
        if self.tiers is not None:
            self.tiers.touch(table.keys[1 : table.num_committed + 1])
        self._release(self._held(table))
        table.blocks = ()
        table.num_committed = 0

    def forget(self, table: BlockTable, num_tokens: int) -> None:
        """Forget what the tiers have of a sequence whose first `num_tokens` were not all read."""
        assert self.tiers is not None, "blocks are read from tiers only"
        self.tiers.drop(table.keys[table.num_committed + 1 : num_tokens // self.block_size + 1])
        self.tiers.counters.num_lost += 1

    def take_transfers(self) -> tuple[BlockTransfers, StateTransfers]:
        """Return the moves of blocks and of states that the next plan has to carry."""
        blocks = _NO_BLOCKS if self.tiers is None else self.tiers.take()
        return blocks, _NO_STATES if self.snapshots is None else self.snapshots.take()

    def disable_disk(self) -> None:
        """Go on without the disk tier, if there is one."""
        if self.tiers is not None and self.tiers.disk.num_slots:
            self.tiers.disable_disk()

    def set_weight_version(self, weight_version: int) -> None:
        """Make every block computed with other weights unreachable. Versions only grow."""
        assert weight_version >= self.weight_version, (weight_version, self.weight_version)
        if weight_version != self.weight_version:
            self.weight_version = weight_version
            self.flush()

    def flush(self) -> None:
        """Forget every prefix in every tier; no table of this weight version may hold one."""
        self.tree.clear()
        self.pool.drop_cached()
        for kept in (self.tiers, self.snapshots):
            if kept is not None:
                kept.clear()

    # States; nothing happens where the model has none.

    def clip(self, start: int, end: int) -> int:
        """Return where a chunk from `start` ends at the latest, so that its state can be kept."""
        return end if self.snapshots is None else self.snapshots.clip(start, end)

    def restore_state(self, table: BlockTable, sequence_id: int, num_cached: int) -> None:
        """Let a sequence that begins behind a cached prefix begin with its state."""
        if self.snapshots is not None and num_cached:
            self.snapshots.restore(table.keys[num_cached // self.block_size], sequence_id)

    def save_state(self, table: BlockTable, sequence_id: int, end: int) -> None:
        """Keep the state of a sequence behind the step that computes its first `end` tokens."""
        if self.snapshots is not None:
            self.snapshots.save(sequence_id, end, self._known_key(table, end))

    def settle_state(self, sequence_id: int, end: int, table: BlockTable | None) -> None:
        """Say that the step is over and where the state's prefix is; None if it is nowhere."""
        if self.snapshots is not None:
            key = None if table is None else self._known_key(table, end)
            self.snapshots.settle(sequence_id, end, key)

    def check(self, tables: Iterable[BlockTable]) -> None:
        """Assert every invariant, given the tables of all sequences that hold blocks."""
        tables = list(tables)
        self.pool.check()
        self.tree.check()
        for kept in (self.tiers, self.snapshots):
            if kept is not None:
                kept.check()
        held = Counter(block for table in tables for block in self._held(table))
        for block in range(self.pool.num_blocks):
            assert self.pool.num_references(block) == held[block], f"block {block} leaks"
        for table in tables:
            self._check_table(table)
        order = {block: index for index, block in enumerate(self.pool.free_order)}
        num_cached = sum(1 for node in self.tree if node.block in order)
        assert num_cached == self.pool.num_cached
        for node in self.tree:
            assert len(node.tokens) == self.block_size
            if node.depth > 1 and node.parent is not None and node.parent.block in order:
                assert order[node.block] < order[node.parent.block], "a leaf is evicted late"

    def _check_table(self, table: BlockTable) -> None:
        held = self._held(table)
        assert len(set(held)) == len(held)
        assert all(block == held[self._place(i)] for i, block in enumerate(table.blocks))
        assert table.num_committed <= len(table.blocks)
        if table.weight_version != self.weight_version:
            return
        committed = table.keys[1 : table.num_committed + 1]
        assert self.tree.match(committed) == list(table.blocks[: table.num_committed])
        for block in table.blocks[table.num_committed :]:
            assert block not in self.tree, f"block {block} is shared and still written"

    def _match(self, table: BlockTable, tokens: Sequence[int]) -> list[int]:
        if table.weight_version != self.weight_version:
            table.weight_version = self.weight_version
            table.keys.clear()
        if not self.enable_prefix_cache:
            return []
        limit = (len(tokens) - 1) // self.block_size
        self._extend_keys(table, tokens, limit)
        return self.tree.match(table.keys[1 : limit + 1])

    def _find_below(self, table: BlockTable, tokens: Sequence[int], num_cached: int) -> list[bytes]:
        """Return the keys, behind the cached ones, of the blocks to read from the tiers."""
        if self.tiers is None:
            return []
        chain = table.keys[1 : (len(tokens) - 1) // self.block_size + 1]
        found = self.tiers.find(chain[num_cached:])
        stops = None
        if self.snapshots is not None:
            stops = self.snapshots.stops(chain[: num_cached + len(found)])
            stops = [stop - num_cached for stop in stops]
        num_read = self.tiers.policy.num_to_read(found, stops)
        return chain[num_cached : num_cached + num_read]

    def _num_usable(self, table: BlockTable, num_found: int) -> int:
        """Return how many of the leading blocks help: with states, those up to a snapshot."""
        if self.snapshots is None:
            return num_found
        return max(self.snapshots.stops(table.keys[1 : num_found + 1]), default=0)

    def _known_key(self, table: BlockTable, end: int) -> bytes | None:
        """Return the key of the block that ends at `end`, if its tokens and weights are known."""
        index = end // self.block_size
        current = table.weight_version == self.weight_version
        return table.keys[index] if current and index < len(table.keys) else None

    def _extend_keys(self, table: BlockTable, tokens: Sequence[int], num_full: int) -> None:
        keys, size = table.keys, self.block_size
        if not keys:
            keys.append(root_key(table.salt, table.adapter, table.weight_version))
        for index in range(len(keys) - 1, num_full):
            keys.append(block_key(keys[-1], tokens[index * size : (index + 1) * size]))

    def _commit_block(self, table: BlockTable, tokens: Sequence[int], index: int) -> None:
        size, own = self.block_size, table.blocks[index]
        own_tokens = tuple(tokens[index * size : (index + 1) * size])
        block = self.tree.insert(table.keys[index], table.keys[index + 1], own_tokens, own)
        if block == own:
            if self.tiers is not None and self.tiers.writes_through:
                self.tiers.store(table.keys[index + 1], block)
        else:
            self.pool.acquire(block)
            self.pool.release(own, keep=False)
            table.blocks = (*table.blocks[:index], block, *table.blocks[index + 1 :])

    def _num_held(self, num_blocks: int) -> int:
        if self.ring_blocks is None:
            return num_blocks
        return min(num_blocks, self.sink_blocks + self.ring_blocks)

    def _place(self, index: int) -> int:
        """Return which of the blocks held is the `index`-th of a table."""
        if self.ring_blocks is None or index < self.sink_blocks:
            return index
        return self.sink_blocks + (index - self.sink_blocks) % self.ring_blocks

    def _held(self, table: BlockTable) -> tuple[int, ...]:
        """Return the blocks of a table, each once."""
        return table.blocks[: self._num_held(len(table.blocks))]

    def _extend(self, table: BlockTable, num_blocks: int) -> None:
        """Lengthen a table to `num_blocks` entries, with new blocks until the ring is closed."""
        held = self._held(table)
        num_new = self._num_held(num_blocks) - len(held)
        held += tuple(self._allocate() for _ in range(num_new))
        added = range(len(table.blocks), num_blocks)
        table.blocks += tuple(held[self._place(index)] for index in added)

    def _allocate(self) -> int:
        block = self.pool.allocate()
        if block in self.tree:
            self._evict(self.tree.remove(block), block)
        return block

    def _evict(self, key: bytes, block: int) -> None:
        """Keep what the tiers below have room for; states without their keys are of no use."""
        if self.tiers is not None:
            self.tiers.store(key, block)
        if self.snapshots is not None and (self.tiers is None or key not in self.tiers):
            self.snapshots.drop(key)

    def _release(self, blocks: tuple[int, ...]) -> None:
        for block in reversed(blocks):
            self.pool.release(block, keep=block in self.tree)
