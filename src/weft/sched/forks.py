"""Forks: requests that begin with what another one has computed (copy on write).

A child shares the full blocks of their common prefix by reference and gets a copy of the block
that it would go on writing in; blocks are never written by two (Kwon et al. 2023, PagedAttention,
arXiv:2309.06180, section 4.4). A child whose parent has not computed its prompt is *held* until it
has, or until the parent ends; then it is a request like any other.
"""

from __future__ import annotations

from collections.abc import Iterator

from weft.sched.manager import BlockTable, KVManager
from weft.sched.sequence import Phase, Sequence


class Forks:
    """Held children and the copies that the first items of others bring along."""

    def __init__(self, kv: KVManager) -> None:
        self._kv = kv
        self._held: dict[int, Sequence] = {}
        # By child: (block to copy from, which is kept until then, block to copy to).
        self._copies: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Sequence]:
        """Iterate over the held children."""
        return iter(self._held.values())

    def hold(self, child: Sequence) -> None:
        """Keep a child until its parent is ready."""
        child.phase = Phase.HELD
        self._held[child.id] = child

    def remove(self, child: Sequence) -> None:
        """Take out a held child."""
        del self._held[child.id]

    def take_ready(self) -> list[Sequence]:
        """Take out the children that need not be held any longer."""
        ready = [child for child in self._held.values() if is_ready(child)]
        for child in ready:
            del self._held[child.id]
        return ready

    def begin(self, child: Sequence, *, reserve: int) -> int | None:
        """Give a child the blocks of its parent and new ones for the rest of its tokens.

        Returns:
            The number of tokens whose keys and values it has then, or None (and nothing changed)
            when fewer than `reserve` blocks would stay free.
        """
        kv, parent, table = self._kv, child.parent, child.table
        assert parent is not None
        assert not table.blocks
        num_shared = _num_shared(child, parent)
        num_full, num_partial = divmod(num_shared, kv.block_size)
        if kv.pool.num_free - (kv.num_blocks_for(len(child.tokens)) - num_full) < reserve:
            return None
        table.blocks = parent.table.blocks[:num_full]
        for block in table.blocks:
            kv.pool.acquire(block)
        _share_keys(table, parent.table, num_full)
        grown = kv.grow(table, len(child.tokens))
        assert grown, "free blocks were counted"
        if num_partial:
            source = parent.table.blocks[num_full]
            kv.pool.acquire(source)
            self._copies[child.id] = (source, table.blocks[num_full])
        return num_shared

    def take_copy(self, child: Sequence) -> tuple[int, int] | None:
        """Return the copy that must precede a child's first item, if there is one."""
        return self._copies.pop(child.id, None)

    def release(self, copies: list[tuple[int, int]]) -> None:
        """Give back the sources of copies that a plan carries: it makes them before it computes."""
        for source, _ in copies:
            self._kv.pool.release(source, keep=source in self._kv.tree)

    def cancel(self, child: Sequence) -> None:
        """Forget the copy of a child that gives its blocks back."""
        copy = self.take_copy(child)
        if copy is not None:
            self.release([copy])

    @property
    def sources(self) -> tuple[int, ...]:
        """Blocks kept to be copied from, once per copy."""
        return tuple(source for source, _ in self._copies.values())


def can_share(child: Sequence, parent: Sequence) -> bool:
    """Whether what `parent` computes is what `child` would compute."""
    mine, theirs = child.request, parent.request
    alike = (mine.cache_salt, mine.adapter) == (theirs.cache_salt, theirs.adapter)
    return alike and child.may_reuse and _num_common(child, parent) > 0


def is_ready(child: Sequence) -> bool:
    """Whether a child can be admitted: its parent has computed its prompt, or has ended."""
    parent = child.parent
    if parent is None or parent.phase is Phase.FINISHED:
        return True
    num_prompt_tokens = min(_num_common(child, parent), parent.num_prompt_tokens)
    return parent.is_proven and parent.num_computed >= num_prompt_tokens


def is_shared(child: Sequence, kv: KVManager) -> bool:
    """Whether a child that is ready begins with its parent's blocks."""
    parent = child.parent
    return (
        parent is not None
        and parent.phase is Phase.RUNNING
        and parent.is_proven
        and parent.table.weight_version == kv.weight_version
        and _num_shared(child, parent) > 0
    )


def _num_shared(child: Sequence, parent: Sequence) -> int:
    return min(_num_common(child, parent), parent.num_computed)


def _num_common(child: Sequence, parent: Sequence) -> int:
    """Return the length of their common prefix; a token is left to compute."""
    limit = min(len(child.tokens) - 1, len(parent.tokens))
    if child.tokens[:limit] == parent.tokens[:limit]:
        return limit
    pairs = zip(child.tokens, parent.tokens, strict=False)
    return next(index for index, (one, other) in enumerate(pairs) if one != other)


def _share_keys(table: BlockTable, parent: BlockTable, num_full: int) -> None:
    """Let a child know its prefix as its parent does, so that it commits behind it."""
    table.weight_version = parent.weight_version
    table.keys[:] = parent.keys[: num_full + 1]
    table.num_committed = min(num_full, parent.num_committed)
