"""A plan becomes the tensors a plain loop over tokens would make."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.engine import batch as batch_module
from weft.engine.batch import build_batch, pad_items
from weft.sched.plan import StepItem


@st.composite
def plans(draw):
    block_size = draw(st.integers(1, 5))
    free = draw(st.permutations(range(60)))
    items = []
    for id in range(draw(st.integers(1, 5))):
        start, length = draw(st.integers(0, 9)), draw(st.integers(1, 6))
        num_blocks = -(-(start + length) // block_size) + draw(st.integers(0, 1))
        blocks, free = tuple(free[:num_blocks]), free[num_blocks:]
        if len(blocks) < num_blocks:
            break
        tokens = tuple(draw(st.lists(st.integers(0, 99), min_size=length, max_size=length)))
        items.append(StepItem(id + 10, tokens, start, blocks, draw(st.booleans())))
    return block_size, items


@settings(max_examples=200, deadline=None)
@given(plans())
def test_batch_equals_a_plain_loop(plan):
    block_size, items = plan
    if not items:
        return
    batch = build_batch(items, block_size)
    tokens, positions, slots, sample_rows = [], [], [], []
    for item in items:
        for offset, token in enumerate(item.tokens):
            position = item.start + offset
            tokens.append(token)
            positions.append(position)
            slots.append(item.blocks[position // block_size] * block_size + position % block_size)
        if item.sample:
            sample_rows.append(len(tokens) - 1)
    assert batch.tokens_T.tolist() == tokens
    assert batch.paged.positions_T.tolist() == positions
    assert batch.paged.slots_T.tolist() == slots
    assert batch.sample_rows_R.tolist() == sample_rows
    assert batch.sample_ids == tuple(item.id for item in items if item.sample)
    ends = [item.start + len(item.tokens) for item in items]
    assert batch.sample_positions_R.tolist() == [
        end for item, end in zip(items, ends, strict=True) if item.sample
    ]
    layout = batch.paged.layout
    assert layout.query_lengths == tuple(len(item.tokens) for item in items)
    assert layout.context_lengths == tuple(ends)
    assert layout.decode == all(len(item.tokens) == 1 for item in items)
    for row, (item, end) in enumerate(zip(items, ends, strict=True)):
        expected = [item.blocks[p // block_size] * block_size + p % block_size for p in range(end)]
        assert layout.slots_BS[row].tolist() == expected + [0] * (max(ends) - end)


def test_state_slots_go_with_their_items():
    items = [StepItem(7, (1, 2), 0, (0,), False), StepItem(8, (3,), 4, (1, 2), True)]
    assert build_batch(items, 4).paged.state_slots_B is None
    batch = build_batch(items, 4, state_slots=[5, 2])
    assert batch.paged.state_slots_B.tolist() == [5, 2]
    assert batch.paged.continues_B.tolist() == [False, True]


@settings(max_examples=100, deadline=None)
@given(plans())
def test_padding_repeats_a_token_that_is_computed_anyway(plan):
    block_size, items = plan
    if not items:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module, "stable_num_rows", lambda num_rows: num_rows + 3)
        padded = build_batch(pad_items(items), block_size)
    plain = build_batch(items, block_size)
    num_tokens = len(plain.tokens_T)
    assert len(padded.tokens_T) == num_tokens + 3
    assert padded.sample_ids == plain.sample_ids
    assert padded.sample_rows_R.tolist() == plain.sample_rows_R.tolist()
    assert padded.paged.layout.decode == plain.paged.layout.decode
    kept, names = set(), ("tokens", "positions", "slots")
    for row in range(num_tokens + 3):
        tensors = (padded.tokens_T, padded.paged.positions_T, padded.paged.slots_T)
        entry = tuple(int(tensor[row]) for tensor in tensors)
        assert row < num_tokens or entry in kept, dict(zip(names, entry, strict=True))
        kept.add(entry)
