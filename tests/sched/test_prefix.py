from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.sched.prefix import PrefixTree, RadixNode, block_key, root_key


def chain(tokens: list[int], size: int = 1, **root: str | int) -> list[bytes]:
    keys = [root_key(**root)]
    for start in range(0, len(tokens) - size + 1, size):
        keys.append(block_key(keys[-1], tokens[start : start + size]))
    return keys


def insert(tree: PrefixTree, tokens: list[int], blocks: list[int]) -> list[int]:
    keys = chain(tokens)
    return [
        tree.insert(keys[index], keys[index + 1], (token,), blocks[index])
        for index, token in enumerate(tokens)
    ]


def test_branches_share_their_prefix_in_the_radix_view():
    # Worked value of row G08.
    tree = PrefixTree()
    insert(tree, [1, 3, 6, 7, 9, 77], [0, 1, 2, 3, 4, 7])
    held = insert(tree, [1, 3, 6, 7, 87, 66], [10, 11, 12, 13, 5, 6])
    assert held == [0, 1, 2, 3, 5, 6], "content that is there already keeps its block"
    leaves = (RadixNode((9, 77), (4, 7), ()), RadixNode((87, 66), (5, 6), ()))
    assert tree.radix() == (RadixNode((1, 3, 6, 7), (0, 1, 2, 3), leaves),)
    assert len(tree) == 8
    assert sorted((node.depth, node.tokens) for node in tree)[-2:] == [(6, (66,)), (6, (77,))]
    tree.check()


def test_match_stops_at_the_first_missing_block():
    tree = PrefixTree()
    insert(tree, [1, 2, 3], [5, 6, 7])
    assert tree.match(chain([1, 2, 9])[1:]) == [5, 6]
    assert tree.match(chain([2, 3])[1:]) == [], "equal tokens after another prefix differ"


@pytest.mark.parametrize(
    "other", [{"salt": "b"}, {"adapter": "b"}, {"weight_version": 1}, {"salt": "a", "adapter": ""}]
)
def test_salt_adapter_and_weight_version_separate_prefixes(other):
    assert chain([1, 2]) != chain([1, 2], **other)
    assert root_key("a", "b") != root_key("ab", "")


def test_a_block_inside_the_tree_cannot_be_removed_before_its_children():
    tree = PrefixTree()
    insert(tree, [1, 2], [0, 1])
    with pytest.raises(AssertionError, match="before the blocks that extend it"):
        tree.remove(0)


def test_removing_leaves_up_to_the_root_leaves_an_empty_tree():
    tree = PrefixTree()
    insert(tree, [1, 2], [0, 1])
    tree.remove(1)
    tree.remove(0)
    assert len(tree) == 0
    assert tree.radix() == ()
    tree.check()


def test_check_notices_a_key_that_does_not_fit_its_tokens():
    tree = PrefixTree()
    insert(tree, [1], [0])
    next(iter(tree)).tokens = (2,)
    with pytest.raises(AssertionError):
        tree.check()


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=12), st.data())
def test_tree_agrees_with_a_plain_set_of_prefixes(sequences, data):
    tree, prefixes, next_block = PrefixTree(), {}, 0
    for tokens in sequences:
        blocks = list(range(next_block, next_block + len(tokens)))
        next_block += len(tokens)
        held = insert(tree, tokens, blocks)
        for end in range(1, len(tokens) + 1):
            prefixes.setdefault(tuple(tokens[:end]), held[end - 1])
        assert held == [prefixes[tuple(tokens[:end])] for end in range(1, len(tokens) + 1)]
        leaves = [p for p in prefixes if not any(q[:-1] == p for q in prefixes)]
        if leaves and data.draw(st.booleans()):
            tree.remove(prefixes.pop(data.draw(st.sampled_from(sorted(leaves)))))
        tree.check()
        assert len(tree) == len(prefixes)
        query = data.draw(st.lists(st.integers(0, 2), max_size=6))
        expected = []
        for end in range(1, len(query) + 1):
            if tuple(query[:end]) not in prefixes:
                break
            expected.append(prefixes[tuple(query[:end])])
        assert tree.match(chain(query)[1:]) == expected
