"""The runner's memory of sequences: the right parameters, counts and bans for every row."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from weft.engine.table import SequenceTable, TokenCounts
from weft.sched.plan import NewSequence
from weft.spec import SamplingParams


def new(id, prompt=(1, 2), sampling=None, stop=(9,)):
    return NewSequence(
        id=id,
        request_id=str(id),
        prompt=prompt,
        sampling=sampling or SamplingParams(),
        sequence=id + 1,
        seed=id + 100,
        stop_token_ids=stop,
    )


@given(st.lists(st.integers(0, 50), min_size=1), st.lists(st.integers(0, 50)))
def test_counts_equal_a_counter(prompt, output):
    counts = TokenCounts(prompt)
    for token in output:
        counts.add(token)
    expected = dict.fromkeys(prompt, 0) | dict(Counter(output))
    got = dict(zip(counts.tokens.tolist(), counts.counts.tolist(), strict=True))
    assert got == expected


def test_rows_carry_their_parameters_in_the_order_asked_for():
    table = SequenceTable()
    for id in range(200):
        table.add(new(id, sampling=SamplingParams(temperature=id / 100, top_k=id + 1)))
    for id in range(0, 200, 2):
        table.remove(id)
    for id in range(200, 260):
        table.add(new(id, sampling=SamplingParams(temperature=0.5, top_k=id + 1, logprobs=2)))
    ids = [259, 7, 201, 199]
    batch = table.sampling_batch(ids, np.array([5, 6, 7, 8]))
    assert batch.top_k_R.tolist() == [260, 8, 202, 200]
    assert batch.temperature_R.tolist() == [0.5, 0.07, 0.5, 1.99]
    assert batch.num_top_R.tolist() == [2, 0, 2, 0]
    assert len(table) == 160
    assert 0 not in table


def test_a_draw_depends_on_seed_sequence_and_position_only():
    table = SequenceTable()
    for id in range(3):
        table.add(new(id))
    together = table.sampling_batch([0, 1, 2], np.array([4, 4, 4])).uniform_R
    again = table.sampling_batch([2, 0], np.array([4, 4])).uniform_R
    assert again.tolist() == [together[2], together[0]]
    assert len(set(together.tolist())) == 3
    assert table.sampling_batch([0], np.array([5])).uniform_R[0] != together[0]


def test_end_tokens_are_banned_until_min_tokens():
    table = SequenceTable()
    table.add(new(0, prompt=(1, 2, 3), sampling=SamplingParams(min_tokens=2), stop=(8, 9)))
    table.add(new(1, prompt=(1, 2, 3)))
    first = table.sampling_batch([1, 0], np.array([3, 3])).banned
    assert [part.tolist() for part in first] == [[1, 1], [8, 9]]
    assert table.sampling_batch([1, 0], np.array([4, 4])).banned is not None
    assert table.sampling_batch([1, 0], np.array([5, 5])).banned is None


def test_only_penalised_rows_have_entries():
    table = SequenceTable()
    table.add(new(0))
    table.add(new(1, prompt=(4, 4, 5), sampling=SamplingParams(presence_penalty=1.0)))
    assert table.sampling_batch([0], np.array([2])).penalties is None
    for id in (0, 1):
        table.record(id, 7)
        table.record(id, 7)
    penalties = table.sampling_batch([0, 1], np.array([4, 5])).penalties
    entries = zip(penalties.rows_E, penalties.tokens_E, penalties.counts_E, strict=True)
    assert sorted(tuple(map(int, entry)) for entry in entries) == [(1, 4, 0), (1, 5, 0), (1, 7, 2)]


def test_forgetting_twice_is_no_error():
    table = SequenceTable()
    table.add(new(0))
    table.remove(0)
    table.remove(0)
    assert len(table) == 0


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_bad_words_ban_the_last_token_of_what_was_just_begun(prompt, output):
    words = ((2,), (0, 1), (1, 1, 3))
    table = SequenceTable()
    table.add(new(0, prompt=tuple(prompt), sampling=SamplingParams(bad_words=words)))
    for token in output:
        table.record(0, token)
    history = [*prompt, *output]
    expected = {w[-1] for w in words if tuple(history[len(history) - len(w) + 1 :]) == w[:-1]}
    batch = table.sampling_batch([0], np.array([len(history)]))
    assert set(batch.banned[1].tolist()) == expected
    table.remove(0)
    table.add(new(1))
    assert table.sampling_batch([1], np.array([2])).banned is None


def test_lists_of_tokens_go_to_the_rows_that_gave_them():
    table = SequenceTable()
    table.add(new(0, sampling=SamplingParams(allowed_token_ids=(7, 3))))
    table.add(new(1))
    table.add(new(2, sampling=SamplingParams(logit_bias=((4, 1.5), (2, -1.0)))))
    batch = table.sampling_batch([2, 1, 0], np.array([2, 2, 2]))
    assert [array.tolist() for array in batch.allowed] == [[2, 2], [3, 7]]
    assert [array.tolist() for array in batch.biases] == [[0, 0], [4, 2], [1.5, -1.0]]
    only_plain = table.sampling_batch([1], np.array([2]))
    assert only_plain.allowed is None
    assert only_plain.biases is None
