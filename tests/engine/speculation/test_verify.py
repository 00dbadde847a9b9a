"""Rejection sampling: equal to the plain reference, and in distribution to the target.

Hidden states are logits here, so a draft's rows say which distribution follows each guess.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from weft.engine.batch import DrawRows
from weft.engine.draw import Drawer, Walk, draw_same
from weft.engine.sampling import pipeline, rng
from weft.engine.speculation.reference import verify_by_rejection, verify_same_draw
from weft.engine.speculation.verify import (
    _FIRST_JUDGING_STREAM,
    GUESS_STREAM,
    RejectionDraw,
    distributions,
    inverse_transform,
)
from weft.engine.table import SequenceTable
from weft.engine.trees import parents_of
from weft.sched.plan import Draft, NewSequence
from weft.spec import SamplingParams

V = 6
START = 2
POSITION = 4
_RANDOM = torch.Generator().manual_seed(0)
TARGET_VV = torch.randn(V, V, generator=_RANDOM) * 1.5
DRAFT_VV = (TARGET_VV + torch.randn(V, V, generator=_RANDOM)).softmax(dim=-1).double()
CHAIN = (-1, 0, 1)
TREE = (-1, -1, -1, 0, 1, 3)
# 99.9 % quantiles of chi-square by degrees of freedom.
CHI_SQUARE = {1: 10.8, 2: 13.8, 3: 16.3, 4: 18.5, 5: 20.5}


def _uniform(seed: int, position: int, stream: int) -> float:
    number = rng.uniform(
        rng.as_uint64([seed]), rng.as_uint64([0]), np.array([position], dtype=np.uint64)
    )
    return float((number if stream == 0 else rng.derive(number, stream))[0])


@functools.cache
def _drafts(num: int, parents: tuple[int, ...]) -> list[tuple[Draft, Tensor]]:
    """Draw guesses from the drafting table for each seed, siblings without replacement."""
    seeds = np.arange(num, dtype=np.uint64)
    tokens: list[Tensor] = []
    rows: list[Tensor] = []
    depths: list[int] = []
    for guess, parent in enumerate(parents):
        probs_SV = DRAFT_VV[tokens[parent] if parent >= 0 else torch.full((num,), START)].clone()
        siblings = [g for g in range(guess) if parents[g] == parent]
        for sibling in siblings:
            probs_SV.scatter_(1, tokens[sibling][:, None], 0.0)
        rows.append(probs_SV / probs_SV.sum(dim=1, keepdim=True))
        depths.append(0 if parent < 0 else depths[parent] + 1)
        own = rng.uniform(seeds, seeds * 0, seeds * 0 + np.uint64(POSITION + depths[-1]))
        uniform = rng.derive(own, GUESS_STREAM + len(siblings))
        tokens.append(inverse_transform(rows[-1], uniform))
    guessed, probs = torch.stack(tokens, dim=1).tolist(), torch.stack(rows, dim=1)
    return [(Draft(tuple(row), parents), probs[seed]) for seed, row in enumerate(guessed)]


def _verify(
    num: int, parents: tuple[int, ...], params: SamplingParams, *, drawn: bool = True
) -> tuple[list[Walk], dict[int, tuple[Draft, Tensor]]]:
    """Verify drafts of sequences that differ in their seeds alone."""
    table = SequenceTable()
    drafts = dict(enumerate(_drafts(num, parents)))
    hidden = []
    for seed, (draft, _) in drafts.items():
        table.add(NewSequence(seed, str(seed), (1,) * POSITION, params, 0, seed, ()))
        hidden += [START, *draft.tokens]
    rows = DrawRows(
        tuple(range(num)),
        np.full(num, POSITION),
        tuple(draft for draft, _ in drafts.values()),
        np.arange(len(hidden)),
    )
    rule = RejectionDraw(lambda id: drafts[id][1] if drawn else None)
    drawer = Drawer(table, torch.clone, rows_per_chunk=10_000, draw=rule)
    return drawer.draw(TARGET_VV[hidden], rows), drafts


def _target_probs(params: SamplingParams, token: int) -> list[float]:
    table = SequenceTable()
    table.add(NewSequence(0, "0", (1,) * POSITION, params, 0, 0, ()))
    batch = table.sampling_batch([0], np.array([POSITION]))
    return distributions(TARGET_VV[[token]].clone(), batch)[0].tolist()


PARAMS = {
    "plain": SamplingParams(),
    "warm": SamplingParams(temperature=1.4),
    "truncated": SamplingParams(temperature=1.3, top_k=4, top_p=0.97),
    "greedy": SamplingParams(temperature=0.0),
}


@pytest.mark.parametrize("parents", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.parametrize("name", PARAMS)
def test_vectorised_equals_plain(name, parents):
    params = PARAMS[name]
    walks, drafts = _verify(150, parents, params)
    for walk in walks:
        draft, rows_MV = drafts[walk.id]
        visited: list[tuple[int, ...]] = []

        def target(tokens, visited=visited):
            visited.append(tokens)
            return _target_probs(params, tokens[-1] if tokens else START)

        def uniforms(id=walk.id, draft=draft, visited=visited) -> Iterator[float]:
            seen, turn = None, 0
            while True:
                tokens = visited[-1]
                turn = turn + 1 if tokens == seen else 0
                seen, position = tokens, POSITION + len(tokens)
                judged = turn < _num_followers(draft, tokens)
                if params.temperature == 0.0:
                    yield 0.3
                else:
                    yield _uniform(id, position, _FIRST_JUDGING_STREAM + turn if judged else 0)

        expected = verify_by_rejection(draft, rows_MV.tolist(), target, uniforms())
        assert [sampled.token for sampled in walk.drawn] == expected


def _num_followers(draft: Draft, tokens: tuple[int, ...]) -> int:
    guess = -1
    for token in tokens:
        guess = next(
            index
            for index, parent in enumerate(parents_of(draft))
            if parent == guess and draft.tokens[index] == token
        )
    return list(parents_of(draft)).count(guess)


def _chi_square(observed: Counter, probs: list[float]) -> tuple[float, int]:
    """Return the statistic and its degrees of freedom; tokens without mass must not occur."""
    total = observed.total()
    cells = [(observed[token], total * p) for token, p in enumerate(probs) if p > 0]
    assert sum(count for count, _ in cells) == total
    return sum((count - mean) ** 2 / mean for count, mean in cells), len(cells) - 1


@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "certain"])
@pytest.mark.parametrize("parents", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.parametrize("name", ["plain", "truncated"])
def test_tokens_have_the_distribution_of_the_target(name, parents, drawn):
    """First tokens, and second tokens behind each first one that was guessed."""
    params = PARAMS[name]
    walks, _ = _verify(4000, parents, params, drawn=drawn)
    behind: dict[int, Counter] = defaultdict(Counter)
    for walk in walks:
        before = START
        for depth, sampled in enumerate(walk.drawn):
            behind[before if depth else -1][sampled.token] += 1
            before = sampled.token
    tested = 0
    for before, observed in behind.items():
        if observed.total() >= 200:
            probs = _target_probs(params, START if before < 0 else before)
            statistic, freedom = _chi_square(observed, probs)
            assert freedom > 0
            assert statistic < CHI_SQUARE[freedom], (before, observed)
            tested += 1
    assert tested >= 3


def test_guesses_hold_as_often_as_the_distributions_overlap():
    """P(accept) = sum of min(p, q) (Leviathan et al. 2023, theorem 3.5)."""
    walks, _ = _verify(4000, CHAIN, SamplingParams())
    target = torch.tensor(_target_probs(SamplingParams(), START))
    overlap = float(torch.minimum(target, DRAFT_VV[START]).sum())
    held = sum(bool(walk.held) for walk in walks) / len(walks)
    assert held == pytest.approx(overlap, abs=0.03)


def test_a_drafter_that_is_the_target_is_always_right():
    table = SequenceTable()
    table.add(NewSequence(0, "0", (1,) * POSITION, SamplingParams(), 0, 9, ()))
    probs_VV = TARGET_VV.double().softmax(dim=-1)
    tokens, rows = [START], []
    for depth in range(4):
        rows.append(probs_VV[tokens[-1]])
        uniform = _uniform(9, POSITION + depth, GUESS_STREAM)
        tokens.append(int(inverse_transform(rows[-1][None], np.array([uniform]))))
    rows_of = DrawRows((0,), np.array([POSITION]), (Draft(tuple(tokens[1:])),), np.arange(5))
    rule = RejectionDraw(lambda id: torch.stack(rows))
    drawer = Drawer(table, torch.clone, rows_per_chunk=99, draw=rule)
    (walk,) = drawer.draw(TARGET_VV[tokens], rows_of)
    assert len(walk.held) == 4


@pytest.mark.parametrize("name", PARAMS)
def test_log_probabilities_are_those_of_plain_sampling(name):
    params = SamplingParams(**{**vars(PARAMS[name]), "logprobs": 3})
    table = SequenceTable()
    for id in range(20):
        table.add(NewSequence(id, str(id), (1,) * POSITION, params, 0, id, ()))
    hidden = TARGET_VV[[id % V for id in range(20)]]
    rows = DrawRows(tuple(range(20)), np.full(20, POSITION), (None,) * 20, np.arange(20))
    drawn = []
    for rule in (draw_same, RejectionDraw(lambda id: None)):
        drawer = Drawer(table, torch.clone, rows_per_chunk=99, draw=rule)
        drawn.append([walk.drawn[0] for walk in drawer.draw(hidden, rows)])
    for plain, ours in zip(*drawn, strict=True):
        assert ours.token == plain.token
        assert ours.logprob == pytest.approx(plain.logprob, abs=1e-6)
        assert [token for token, _ in ours.top] == [token for token, _ in plain.top]
        assert [p for _, p in ours.top] == pytest.approx([p for _, p in plain.top], abs=1e-6)


def test_a_tree_is_verified_as_its_tokens_one_after_the_other():
    """With equal draws the walk down a tree is the sequence that is drawn without it."""
    params = PARAMS["truncated"]
    table = SequenceTable()
    drafts = [draft for draft, _ in _drafts(100, TREE)]
    hidden = []
    for seed, draft in enumerate(drafts):
        table.add(NewSequence(seed, str(seed), (1,) * POSITION, params, 0, seed, ()))
        hidden += [START, *draft.tokens]
    rows = DrawRows(tuple(range(100)), np.full(100, POSITION), tuple(drafts), np.arange(700))
    walks = Drawer(table, torch.clone, rows_per_chunk=64).draw(TARGET_VV[hidden], rows)
    for walk, draft in zip(walks, drafts, strict=True):

        def draw(behind: tuple[int, ...], id=walk.id) -> int:
            batch = table.sampling_batch([id], np.array([POSITION + len(behind)]))
            logits_1V = TARGET_VV[[behind[-1] if behind else START]].clone()
            return int(pipeline.sample(logits_1V, batch).tokens_R[0])

        assert [sampled.token for sampled in walk.drawn] == verify_same_draw(draft, draw)
    assert sum(len(walk.held) for walk in walks) > 30


def test_numbers_of_streams_are_independent():
    uniform = np.random.default_rng(0).random(20_000)
    streams = [uniform, *(rng.derive(uniform, stream) for stream in (1, 2, 1 << 32))]
    assert np.abs(np.corrcoef(streams) - np.eye(4)).max() < 0.03
    assert all(0.49 < numbers.mean() < 0.51 for numbers in streams)
