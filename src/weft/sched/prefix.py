"""The prefix cache: full blocks chained by a hash over everything their keys and values depend on.

A block's key is SHA-256 over its parent's key and its own tokens; the first parent is a hash of
the cache salt, the adapter and the weight version. Equal keys therefore mean equal content, and
no request can reach blocks of another salt, adapter or version. The hash is cryptographic because
the salt is a boundary between tenants.

The same nodes are seen in two ways. As a hash map: a lookup walks the keys of a prompt until one
is missing, whatever the number of entries. As a tree: each node knows its parent and children,
`radix` merges chains without branches, and eviction must take leaves first. The hash map follows
the prefix cache of vLLM, the tree RadixAttention (Zheng et al. 2023, arXiv:2312.07104).
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class PrefixNode:
    """One cached block. A root has no block and no tokens.

    Attributes:
        key: Hash of the whole prefix that ends here.
        parent: The block before; None for a root.
        tokens: The block's own tokens.
        block: Where they are in the cache; -1 for a root.
        depth: Blocks from the root to here, this one included.
        children: Blocks that continue this prefix, by key.
    """

    key: bytes
    parent: PrefixNode | None
    tokens: tuple[int, ...]
    block: int
    depth: int
    children: dict[bytes, PrefixNode] = field(default_factory=dict)


@dataclass(frozen=True)
class RadixNode:
    """A run of blocks without branches, for inspection and cache-aware routing."""

    tokens: tuple[int, ...]
    blocks: tuple[int, ...]
    children: tuple[RadixNode, ...]


def root_key(salt: str = "", adapter: str = "", weight_version: int = 0) -> bytes:
    """Return the key that the first block of every prefix with these properties is chained to."""
    return hashlib.sha256(json.dumps([salt, adapter, weight_version]).encode()).digest()


def block_key(parent_key: bytes, tokens: Sequence[int]) -> bytes:
    """Return the key of a full block with `tokens` after the prefix of `parent_key`."""
    return hashlib.sha256(parent_key + array("q", tokens).tobytes()).digest()


class PrefixTree:
    """Cached blocks by key, by block and as a tree."""

    def __init__(self) -> None:
        self._roots: dict[bytes, PrefixNode] = {}
        self._by_key: dict[bytes, PrefixNode] = {}
        self._by_block: dict[int, PrefixNode] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[PrefixNode]:
        """Iterate over all nodes, parents before their children."""
        stack = list(self._roots.values())
        while stack:
            node = stack.pop()
            if node.parent is not None:
                yield node
            stack.extend(node.children.values())

    def __contains__(self, block: int) -> bool:
        return block in self._by_block

    def match(self, keys: Sequence[bytes]) -> list[int]:
        """Return the blocks of the longest cached prefix of a chain of keys."""
        blocks = []
        for key in keys:
            node = self._by_key.get(key)
            if node is None:
                break
            blocks.append(node.block)
        return blocks

    def insert(self, parent_key: bytes, key: bytes, tokens: tuple[int, ...], block: int) -> int:
        """Enter a computed block and return the block that holds this prefix from now on.

        That is another block when the same content was computed twice: the first one stays.
        """
        node = self._by_key.get(key)
        if node is None:
            parent = self._by_key.get(parent_key)
            if parent is None:
                parent = self._roots.get(parent_key)
            if parent is None:
                parent = self._roots[parent_key] = PrefixNode(parent_key, None, (), -1, 0)
            node = PrefixNode(key, parent, tokens, block, parent.depth + 1)
            parent.children[key] = self._by_key[key] = self._by_block[block] = node
        return node.block

    def remove(self, block: int) -> bytes:
        """Drop the entry of a block that gets new content and return its key; it must be a leaf."""
        node = self._by_block.pop(block)
        assert not node.children, f"block {block} is evicted before the blocks that extend it"
        del self._by_key[node.key]
        assert node.parent is not None
        del node.parent.children[node.key]
        if node.parent.parent is None and not node.parent.children:
            del self._roots[node.parent.key]
        return node.key

    def clear(self) -> None:
        """Drop every entry."""
        self._roots.clear()
        self._by_key.clear()
        self._by_block.clear()

    def radix(self) -> tuple[RadixNode, ...]:
        """Return the tree with chains merged: one node per branch, across all roots."""
        children = (child for root in self._roots.values() for child in root.children.values())
        return tuple(_merge(child) for child in children)

    def check(self) -> None:
        """Assert that the three views hold the same nodes and that every key fits its content."""
        nodes = list(self)
        assert {node.key: node for node in nodes} == self._by_key
        assert {node.block: node for node in nodes} == self._by_block
        for node in nodes:
            parent = node.parent
            assert parent is not None
            assert parent.children[node.key] is node
            assert node.depth == parent.depth + 1
            assert node.key == block_key(parent.key, node.tokens)
        assert all(root.children for root in self._roots.values())


def _merge(node: PrefixNode) -> RadixNode:
    tokens, blocks = list(node.tokens), [node.block]
    while len(node.children) == 1:
        (node,) = node.children.values()
        tokens.extend(node.tokens)
        blocks.append(node.block)
    children = tuple(_merge(child) for child in node.children.values())
    return RadixNode(tuple(tokens), tuple(blocks), children)
