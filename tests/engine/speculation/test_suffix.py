"""The trie counts every substring; suffix decoding continues the most promising one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.engine.speculation.config import SuffixConfig, TreeShape
from weft.engine.speculation.suffix import SuffixProposer, continue_suffix
from weft.engine.speculation.suffix_trie import SuffixTrie
from weft.engine.step_view import StepView
from weft.sched.plan import Draft, NewSequence
from weft.spec import SamplingParams

DEPTH = 5


def _plain_followers(documents: list[list[int]], suffix: list[int]) -> dict[int, float]:
    found: Counter[int] = Counter()
    for document in documents:
        for start in range(len(document) - len(suffix)):
            if document[start : start + len(suffix)] == suffix:
                found[document[start + len(suffix)]] += 1
    return {token: count / found.total() for token, count in found.items()}


@given(st.lists(st.integers(0, 2), max_size=30))
def test_followers_have_the_shares_that_counting_gives(tokens):
    trie = SuffixTrie(DEPTH)
    for token in tokens:
        trie.append(token)
    repeated = trie.repeated()
    for length, cursor in repeated:
        shares = {token: share for token, share, _ in trie.followers(cursor)}
        assert shares == pytest.approx(_plain_followers([tokens], tokens[len(tokens) - length :]))
    occurred = [
        length for length in range(1, DEPTH) if _plain_followers([tokens], tokens[-length:])
    ]
    assert [length for length, _ in repeated] == occurred[::-1]


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=4),
    st.lists(st.integers(0, 2), max_size=10),
)
def test_a_second_text_is_followed_through_the_first_ones(documents, tokens):
    trie = SuffixTrie(DEPTH)
    for document in documents:
        trie.add_document(document)
    cursors = []
    for token in tokens:
        cursors = trie.advance(cursors, token)
    for index, cursor in enumerate(cursors):
        suffix = tokens[len(tokens) - (len(cursors) - index) :]
        shares = {token: share for token, share, _ in trie.followers(cursor)}
        assert shares == pytest.approx(_plain_followers(documents, suffix))


def test_a_text_without_repetition_takes_one_node_per_token():
    trie = SuffixTrie(DEPTH)
    for token in range(1000):
        trie.append(token)
    assert len(trie._root.children) == 1000
    assert not any(child.children for child in trie._root.children.values())


def test_the_likeliest_branches_are_added_first():
    trie = SuffixTrie(DEPTH)
    for document in ([1, 2, 3], [1, 2, 4], [1, 2, 3], [1, 5, 6]):
        trie.add_document(document)
    (cursor,) = trie.advance([], 1)
    draft, score = continue_suffix(trie, cursor, 4, TreeShape(2), 0.0)
    assert draft == Draft((2, 3, 5, 4), (-1, 0, -1, 0))
    assert score == pytest.approx(3 / 4 + 2 / 4 + 1 / 4 + 1 / 4)
    chain, _ = continue_suffix(trie, cursor, 4, TreeShape(1), 0.0)
    assert chain == Draft((2, 3))
    short, _ = continue_suffix(trie, cursor, 4, TreeShape(2), 0.6)
    assert short.tokens == (2,)


def _view(new=(), walks=None) -> StepView:
    return StepView((), tuple(new), (), None, None, walks or {})


class _Walk:
    def __init__(self, *tokens: int) -> None:
        self.drawn = [type("Drawn", (), {"token": token})() for token in tokens]


def _new(id: int, prompt: tuple[int, ...]) -> NewSequence:
    return NewSequence(id, str(id), prompt, SamplingParams(), 0, 0, ())


def test_answers_that_ended_are_continued_in_later_requests():
    proposer = SuffixProposer(SuffixConfig(), 4, TreeShape())
    proposer.take_in(_view([_new(0, (1,))], {0: _Walk(50, 51, 52, 53, 54)}))
    proposer.forget([0])
    view = _view([_new(1, (7, 8))], {1: _Walk(50, 51)})
    proposer.take_in(view)
    assert proposer.propose(view) == {1: Draft((52, 53, 54))}


def test_no_more_is_remembered_than_the_limit():
    proposer = SuffixProposer(SuffixConfig(max_past_tokens=40), 4, TreeShape())
    for id in range(30):
        answer = range(100 * id, 100 * id + 9)
        proposer.take_in(_view([_new(id, (1,))], {id: _Walk(*answer)}))
        proposer.forget([id])
        assert len(proposer._past.text) <= 41
    view = _view([_new(99, (1,))], {99: _Walk(2900, 2901)})
    proposer.take_in(view)
    assert proposer.propose(view)[99].tokens == (2902, 2903, 2904, 2905)
