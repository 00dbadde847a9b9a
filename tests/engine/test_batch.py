"""A plan becomes the tensors a plain loop over tokens would make."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.engine import batch as batch_module
from weft.engine.batch import build_batch, pad_items
from weft.sched.plan import Draft, StepItem


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
    assert batch.draws.rows_R.tolist() == sample_rows
    assert batch.draws.ids == tuple(item.id for item in items if item.sample)
    ends = [item.start + len(item.tokens) for item in items]
    assert batch.draws.positions_B.tolist() == [
        end for item, end in zip(items, ends, strict=True) if item.sample
    ]
    layout = batch.paged.layout
    assert layout.query_lengths == tuple(len(item.tokens) for item in items)
    assert layout.context_lengths == tuple(ends)
    assert layout.decode == all(len(item.tokens) == 1 for item in items)
    for row, (item, end) in enumerate(zip(items, ends, strict=True)):
        expected = [item.blocks[p // block_size] * block_size + p % block_size for p in range(end)]
        assert layout.slots_BS[row].tolist() == expected + expected[:1] * (max(ends) - end)


def branch_of(draft: Draft, guess: int) -> list[int]:
    """Return the guesses from the root of a draft to this one."""
    path: list[int] = []
    while guess >= 0:
        path.insert(0, guess)
        guess = draft.parents[guess] if draft.parents else guess - 1
    return path


@st.composite
def drafts(draw):
    num_guesses = draw(st.integers(1, 5))
    parents = tuple(draw(st.integers(-1, guess - 1)) for guess in range(num_guesses))
    tokens = tuple(draw(st.lists(st.integers(0, 99), min_size=num_guesses, max_size=num_guesses)))
    return Draft(tokens, draw(st.sampled_from([parents, ()])))


@settings(max_examples=100, deadline=None)
@given(plans(), st.data())
def test_guesses_are_laid_out_as_a_plain_loop_would(plan, data):
    block_size, items = plan
    spare = iter(range(60, 600))
    guessing = []
    for item in items:
        draft = data.draw(st.one_of(st.none(), drafts())) if item.sample else None
        num_places = item.start + len(item.tokens) + (0 if draft is None else len(draft.tokens))
        missing = -(-num_places // block_size) - len(item.blocks)
        blocks = (*item.blocks, *(next(spare) for _ in range(missing)))
        guessing.append(item._replace(draft=draft, blocks=blocks))
    if not guessing:
        return
    batch = build_batch(guessing, block_size)
    tokens, slots, positions, visible, rows = [], [], [], [], []
    for item in guessing:

        def slot(place, item=item):
            return item.blocks[place // block_size] * block_size + place % block_size

        for offset, token in enumerate(item.tokens):
            tokens.append(token)
            slots.append(slot(item.start + offset))
            positions.append(item.start + offset)
            visible.append([slot(place) for place in range(item.start + offset + 1)])
        end = item.start + len(item.tokens)
        if item.sample:
            rows.append(len(tokens) - 1)
        for guess, token in enumerate(item.draft.tokens if item.draft else ()):
            path = branch_of(item.draft, guess)
            rows.append(len(tokens))
            tokens.append(token)
            slots.append(slot(end + guess))
            positions.append(end - 1 + len(path))
            visible.append([slot(place) for place in (*range(end), *(end + g for g in path))])
    assert batch.tokens_T.tolist() == tokens
    assert batch.paged.slots_T.tolist() == slots
    assert batch.paged.positions_T.tolist() == positions
    assert batch.draws.rows_R.tolist() == rows
    assert batch.draws.drafts == tuple(item.draft for item in guessing if item.sample)
    layout = batch.paged.layout
    assert layout.decode == (max(layout.query_lengths) == 1)
    pairs = zip(layout.rows_T.tolist(), layout.positions_T.tolist(), strict=True)
    assert [layout.slots_BS[row, : place + 1].tolist() for row, place in pairs] == visible
    for row, context in enumerate(layout.context_lengths):
        assert (layout.slots_BS[row, context:] == layout.slots_BS[row, 0]).all()


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
    assert padded.draws.ids == plain.draws.ids
    assert padded.draws.rows_R.tolist() == plain.draws.rows_R.tolist()
    assert padded.paged.layout.decode == plain.paged.layout.decode
    kept, names = set(), ("tokens", "positions", "slots")
    for row in range(num_tokens + 3):
        tensors = (padded.tokens_T, padded.paged.positions_T, padded.paged.slots_T)
        entry = tuple(int(tensor[row]) for tensor in tensors)
        assert row < num_tokens or entry in kept, dict(zip(names, entry, strict=True))
        kept.add(entry)
