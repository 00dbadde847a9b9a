"""Block tables of sequences over the pool and the prefix tree.

Invariants, all asserted by `KVManager.check`:

- A block's reference count is the number of block tables that list it.
- A cached block is full, computed, and never written again.
- Who holds a block of the tree holds the blocks before it, too. Hence no block is evicted before
  those that extend it, and a free list in release order evicts leaves first.

The last one needs care when two sequences compute the same block at the same time: the second one
to commit it takes over the first one's block and gives its own back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from weft.sched.blocks import BlockPool
from weft.sched.prefix import PrefixTree, block_key, root_key


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
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        enable_prefix_cache: bool = True,
        ring_blocks: int | None = None,
    ) -> None:
        assert ring_blocks is None or not enable_prefix_cache
        self.block_size = block_size
        self.enable_prefix_cache = enable_prefix_cache
        self.ring_blocks = ring_blocks
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
        num_blocks = self.num_blocks_for(len(tokens))
        num_new = self._num_held(num_blocks) - len(cached)
        num_revived = sum(1 for block in cached if self.pool.num_references(block) == 0)
        if self.pool.num_free - num_revived - num_new < reserve:
            return None
        for block in cached:
            self.pool.acquire(block)
        table.blocks = tuple(cached)
        self._extend(table, num_blocks)
        table.num_committed = len(cached)
        return len(cached) * self.block_size

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
        assert num_tokens >= table.num_committed * self.block_size
        self._release(self._held(table)[keep:])
        table.blocks = table.blocks[:keep]

    def free(self, table: BlockTable) -> None:
        """Give everything back. What is in the prefix tree stays there until it is needed."""
        self._release(self._held(table))
        table.blocks = ()
        table.num_committed = 0

    def set_weight_version(self, weight_version: int) -> None:
        """Make every block computed with other weights unreachable. Versions only grow."""
        assert weight_version >= self.weight_version, (weight_version, self.weight_version)
        if weight_version != self.weight_version:
            self.weight_version = weight_version
            self.tree.clear()
            self.pool.drop_cached()

    def check(self, tables: Iterable[BlockTable]) -> None:
        """Assert every invariant, given the tables of all sequences that hold blocks."""
        tables = list(tables)
        self.pool.check()
        self.tree.check()
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
        assert all(block == held[i % len(held)] for i, block in enumerate(table.blocks))
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
        if block != own:
            self.pool.acquire(block)
            self.pool.release(own, keep=False)
            table.blocks = (*table.blocks[:index], block, *table.blocks[index + 1 :])

    def _num_held(self, num_blocks: int) -> int:
        return num_blocks if self.ring_blocks is None else min(num_blocks, self.ring_blocks)

    def _held(self, table: BlockTable) -> tuple[int, ...]:
        """Return the blocks of a table, each once."""
        return table.blocks[: self._num_held(len(table.blocks))]

    def _extend(self, table: BlockTable, num_blocks: int) -> None:
        """Lengthen a table to `num_blocks` entries, with new blocks until the ring is closed."""
        held = self._held(table)
        num_new = self._num_held(num_blocks) - len(held)
        held += tuple(self._allocate() for _ in range(num_new))
        table.blocks = tuple(held[i % len(held)] for i in range(num_blocks))

    def _allocate(self) -> int:
        block = self.pool.allocate()
        if block in self.tree:
            self.tree.remove(block)
        return block

    def _release(self, blocks: tuple[int, ...]) -> None:
        for block in reversed(blocks):
            self.pool.release(block, keep=block in self.tree)
