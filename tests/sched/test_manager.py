from __future__ import annotations

import pytest

from weft.sched.manager import BlockTable, KVManager


def begin(kv: KVManager, tokens: list[int], **table: str) -> BlockTable:
    block_table = BlockTable(**table)
    assert kv.begin(block_table, tokens) is not None
    return block_table


def computed(kv: KVManager, tokens: list[int], **table: str) -> BlockTable:
    block_table = begin(kv, tokens, **table)
    kv.commit(block_table, tokens, len(tokens))
    return block_table


def test_block_states_of_row_g04():
    kv = KVManager(num_blocks=10, block_size=4)
    first, second = list(range(8)), list(range(100, 108))
    table0, table1 = computed(kv, first), computed(kv, second)
    assert (table0.blocks, table1.blocks) == ((0, 1), (2, 3))
    assert kv.pool.free_order == (4, 5, 6, 7, 8, 9)
    kv.free(table0)
    assert kv.pool.free_order == (4, 5, 6, 7, 8, 9, 1, 0)
    table2 = computed(kv, list(range(200, 208)))
    assert {*table1.blocks, *table2.blocks} == {2, 3, 4, 5}
    repeat = BlockTable()
    assert kv.begin(repeat, [*first, 8]) == 8
    assert repeat.blocks[:2] == (0, 1)
    kv.check([table1, table2, repeat])


def test_eviction_takes_leaves_first_as_in_row_g08():
    kv = KVManager(num_blocks=250, block_size=1)
    one = computed(kv, [1, 3, 6, 7, 9, 77])
    assert kv.pool.num_free == 244
    kv.free(one)
    assert kv.pool.num_free == 250
    two = computed(kv, [1, 3, 6, 7, 87, 66])
    assert two.blocks[:4] == (0, 1, 2, 3)
    kv.free(two)
    (root,) = kv.tree.radix()
    assert root.tokens == (1, 3, 6, 7)
    assert {leaf.tokens for leaf in root.children} == {(9, 77), (87, 66)}
    # 242 blank blocks go first; then the older leaf from its end, the newer one, the shared run.
    other = begin(kv, list(range(1000, 1242)))
    assert kv.pool.num_cached == 8
    evicted = {node.block: node.tokens for node in kv.tree}
    order = [evicted[block] for block in kv.pool.free_order]
    assert order == [(77,), (9,), (66,), (87,), (7,), (6,), (3,), (1,)]
    kv.grow(other, 245)
    assert [leaf.tokens for leaf in kv.tree.radix()] == [(1, 3, 6, 7, 87)]
    kv.check([other])


def test_evicted_slots_of_row_g08():
    kv = KVManager(num_blocks=8, block_size=1)
    one_tokens, two_tokens = [1, 3, 6, 7, 9, 77], [1, 3, 6, 7, 87, 66]
    one = computed(kv, one_tokens[:5])
    two = computed(kv, two_tokens)
    kv.grow(one, 6)
    kv.commit(one, one_tokens, 6)
    assert (one.blocks, two.blocks) == ((0, 1, 2, 3, 4, 7), (0, 1, 2, 3, 5, 6))
    assert kv.pool.num_free == 0, "what sequences hold is protected"
    kv.free(one)
    assert kv.pool.free_order == (7, 4), "what is shared stays protected"
    kv.free(two)
    # Leaf after leaf, [4, 7] and [5, 6]; block by block, so that three are three and not four.
    assert begin(kv, [500, 501, 502]).blocks == (7, 4, 6)
    assert [node.tokens for node in kv.tree.radix()] == [(1, 3, 6, 7, 87)]
    assert begin(kv, [600]).blocks == (5,)
    assert [node.tokens for node in kv.tree.radix()] == [(1, 3, 6, 7)]


def test_a_hit_leaves_a_token_to_compute():
    kv = KVManager(num_blocks=8, block_size=2)
    kv.free(computed(kv, [1, 2, 3, 4]))
    assert kv.begin(BlockTable(), [1, 2, 3, 4]) == 2


def test_only_computed_blocks_can_be_hit():
    kv = KVManager(num_blocks=8, block_size=2)
    table = begin(kv, [1, 2, 3, 4, 5])
    kv.commit(table, [1, 2, 3, 4, 5], 3)
    assert kv.begin(BlockTable(), [1, 2, 3, 4, 5]) == 2


def test_begin_changes_nothing_when_blocks_are_missing():
    kv = KVManager(num_blocks=4, block_size=2)
    kv.free(computed(kv, [1, 2, 3, 4]))
    running = begin(kv, [9, 9, 9, 9])
    before = kv.pool.free_order
    assert kv.begin(BlockTable(), [1, 2, 3, 4, 5, 6]) is None
    assert kv.begin(BlockTable(), [1, 2], reserve=2) is None
    assert kv.pool.free_order == before
    kv.check([running])


def test_the_same_content_computed_twice_ends_in_one_block():
    kv = KVManager(num_blocks=8, block_size=2)
    tokens = [1, 2, 3, 4, 5]
    one, two = begin(kv, tokens), begin(kv, tokens)
    kv.commit(one, tokens, 5)
    kv.commit(two, tokens, 5)
    assert two.blocks[:2] == one.blocks[:2]
    assert two.blocks[2] != one.blocks[2]
    assert kv.pool.num_free == 4
    kv.check([one, two])
    kv.free(one)
    kv.check([two])


def test_other_salts_do_not_see_a_prefix():
    kv = KVManager(num_blocks=8, block_size=2)
    kv.free(computed(kv, [1, 2, 3], salt="a"))
    assert kv.begin(BlockTable(salt="b"), [1, 2, 3]) == 0
    assert kv.begin(BlockTable(salt="a"), [1, 2, 3]) == 2


def test_new_weights_make_older_blocks_unreachable_and_blank():
    kv = KVManager(num_blocks=8, block_size=2)
    kv.free(computed(kv, [1, 2, 3]))
    assert kv.pool.num_cached == 1
    kv.set_weight_version(1)
    assert kv.pool.num_cached == 0
    assert kv.begin(BlockTable(), [1, 2, 3]) == 0


def test_a_running_sequence_is_not_shared_after_new_weights_until_it_is_recomputed():
    kv = KVManager(num_blocks=8, block_size=2)
    tokens = [1, 2, 3, 4, 5]
    table = begin(kv, tokens)
    kv.commit(table, tokens, 2)
    kv.set_weight_version(1)
    kv.commit(table, tokens, 4)
    assert len(kv.tree) == 0
    kv.check([table])
    kv.free(table)
    assert kv.begin(table, tokens) == 0
    kv.commit(table, tokens, 4)
    kv.free(table)
    assert kv.begin(BlockTable(), tokens) == 4


def test_keys_of_a_sequence_that_waited_follow_the_new_weights():
    kv = KVManager(num_blocks=4, block_size=2)
    running = begin(kv, [9] * 8)
    waiting, tokens = BlockTable(), [1, 2, 3]
    assert kv.begin(waiting, tokens) is None
    kv.set_weight_version(1)
    kv.free(running)
    assert kv.begin(waiting, tokens) == 0
    kv.commit(waiting, tokens, 3)
    assert kv.begin(BlockTable(), tokens) == 2


def test_truncate_gives_back_the_tail():
    kv = KVManager(num_blocks=8, block_size=2)
    tokens = [1, 2, 3, 4, 5, 6, 7]
    table = begin(kv, tokens)
    kv.commit(table, tokens, 3)
    kv.truncate(table, 3)
    assert table.blocks == (0, 1)
    assert kv.pool.num_free == 6
    kv.check([table])
    with pytest.raises(AssertionError):
        kv.truncate(table, 1)


def test_a_disabled_cache_keeps_nothing():
    kv = KVManager(num_blocks=8, block_size=2, enable_prefix_cache=False)
    kv.free(computed(kv, [1, 2, 3]))
    assert kv.pool.num_cached == 0
    assert kv.begin(BlockTable(), [1, 2, 3]) == 0


def ring(num_blocks=8):
    return KVManager(num_blocks, 2, enable_prefix_cache=False, ring_blocks=3)


def test_a_ring_writes_over_its_oldest_block():
    kv, table = ring(), BlockTable()
    assert kv.begin(table, range(5)) == 0
    first, second, third = table.blocks
    assert kv.grow(table, 12)
    assert table.blocks == (first, second, third) * 2
    assert kv.pool.num_free == 5
    kv.check([table])


def test_a_ring_takes_no_more_blocks_however_long_the_prompt_is():
    kv, tables = ring(num_blocks=6), [BlockTable(), BlockTable(), BlockTable()]
    assert [kv.begin(table, range(1000)) for table in tables] == [0, 0, None]
    assert kv.pool.num_free == 0
    assert kv.grow(tables[0], 2000)
    kv.check(tables)
    for table in tables:
        kv.free(table)
    assert kv.pool.num_free == 6


@pytest.mark.parametrize(("num_tokens", "num_free"), [(9, 5), (5, 5), (4, 6), (1, 7)])
def test_a_shortened_ring_gives_back_what_it_has_left(num_tokens, num_free):
    kv, table = ring(), BlockTable()
    kv.begin(table, range(11))
    kv.truncate(table, num_tokens)
    assert kv.pool.num_free == num_free
    kv.check([table])
    assert kv.grow(table, 11)
    assert kv.pool.num_free == 5


def test_check_notices_a_leak():
    kv = KVManager(num_blocks=2, block_size=2)
    begin(kv, [1])
    with pytest.raises(AssertionError, match="leaks"):
        kv.check([])


def test_a_table_that_reuses_nothing_computes_all_and_shares_what_it_computed():
    kv = KVManager(num_blocks=10, block_size=2)
    kv.free(computed(kv, [1, 2, 3, 4]))
    table = BlockTable()
    assert kv.begin(table, [1, 2, 3, 4, 5], reuse=False) == 0
    kv.commit(table, [1, 2, 3, 4, 5], 4)
    # The blocks of equal content that were there before take the place of its own.
    assert table.blocks[:2] == (0, 1)
    kv.check([table])
    assert kv.begin(BlockTable(), [1, 2, 3, 4, 5]) == 4


def test_sink_blocks_stay_while_the_ring_behind_them_turns():
    kv = KVManager(8, 2, enable_prefix_cache=False, ring_blocks=3, sink_blocks=2)
    table = BlockTable()
    assert kv.begin(table, range(3)) == 0
    assert kv.pool.num_free == 6
    assert kv.grow(table, 22)
    first, second, third, fourth, fifth = table.blocks[:5]
    assert table.blocks == (first, second, *(third, fourth, fifth) * 3)
    assert kv.pool.num_free == 3
    kv.check([table])
    kv.truncate(table, 7)
    assert table.blocks == (first, second, third, fourth)
    kv.check([table])
    kv.free(table)
    assert kv.pool.num_free == 8
