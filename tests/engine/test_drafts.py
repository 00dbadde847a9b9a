"""Whatever is guessed, right or wrong, chain or tree: the tokens are those without guesses."""

from __future__ import annotations

import dataclasses
import functools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.features.support import GREEDY, PENALISED, SEEDED, tiny
from tests.engine.support import tokenizer
from weft.engine.grammar.compiler import GrammarCompiler
from weft.engine.runner import ModelRunner
from weft.engine.sampling import pipeline
from weft.engine.step_view import StepView
from weft.nn.kv_cache import KVCache
from weft.sched.plan import Draft, NewSequence, Sampled, StepItem, StepPlan
from weft.spec import SamplingParams
from weft.spec.structured import Regex

BLOCK_SIZE, NUM_BLOCKS, MAX_GUESSES = 4, 64, 6
PROMPTS = [(5, 7, 11, 13), (40, 60), (3,) * 9]
PARAMS = {
    "greedy": GREEDY,
    "seeded": SEEDED,
    "penalised": PENALISED,
    "bad-words": dataclasses.replace(GREEDY, bad_words=((250, 7), (9,)), logprobs=2),
    "grammar": dataclasses.replace(SEEDED, structured=Regex("[a-z]{3,40}")),
}


class Feeder:
    """Feeds a runner as a scheduler would: blocks in disorder, drafts as told."""

    def __init__(self, params: SamplingParams, *, kind: str = "dense", **options) -> None:
        model = tiny(kind)
        cache = KVCache(model.spec, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)
        self.runner = ModelRunner(model, cache, **options)
        self.tokens = [list(prompt) for prompt in PROMPTS]
        self.sampled: list[list[Sampled]] = [[] for _ in PROMPTS]
        self.num_steps = 0
        blocks = random.Random(0).sample(range(NUM_BLOCKS), NUM_BLOCKS)
        size = NUM_BLOCKS // len(PROMPTS)
        self.blocks = [tuple(blocks[i * size : (i + 1) * size]) for i in range(len(PROMPTS))]
        new = tuple(self._new(index, params) for index in range(len(PROMPTS)))
        self._run(StepPlan(0, self._items(start=0), new))

    def step(self, *drafts: Draft | None) -> list[list[int]]:
        """Decode once; return what each sequence has drawn."""
        before = [len(tokens) for tokens in self.tokens]
        self._run(StepPlan(self.num_steps, self._items(drafts=drafts)))
        pairs = zip(self.tokens, before, strict=True)
        return [tokens[num_before:] for tokens, num_before in pairs]

    def _new(self, index: int, params: SamplingParams) -> NewSequence:
        if params.structured is not None:
            grammar = GrammarCompiler(tokenizer(), 300).start(params.structured)
            self.runner.table.grammars.prepare(str(index), grammar)
        prompt, seed = PROMPTS[index], params.seed or 0
        return NewSequence(index, str(index), prompt, params, 0, seed, tokenizer().eos_ids)

    def _items(self, *, start: int | None = None, drafts=()) -> tuple[StepItem, ...]:
        items = []
        for index, tokens in enumerate(self.tokens):
            first = len(tokens) - 1 if start is None else start
            draft = drafts[index] if index < len(drafts) else None
            num_places = len(tokens) + (0 if draft is None else len(draft.tokens))
            blocks = self.blocks[index][: -(-num_places // BLOCK_SIZE)]
            items.append(StepItem(index, tuple(tokens[first:]), first, blocks, True, draft))
        return tuple(items)

    def _run(self, plan: StepPlan) -> None:
        result = self.runner.execute(plan)
        assert not result.errors
        for index, drawn in result.tokens.items():
            self.tokens[index] += [sampled.token for sampled in drawn]
            self.sampled[index] += drawn
        self.num_steps += 1


@functools.cache
def expected(name: str, kind: str = "dense", num_tokens: int = 30) -> list[list[Sampled]]:
    """Return what is drawn one token at a time."""
    feeder = Feeder(PARAMS[name], kind=kind)
    for _ in range(num_tokens):
        feeder.step()
    return feeder.sampled


def guess(draw: st.DrawFn, following: list[int]) -> Draft | None:
    """Draw a draft that is partly right: a tree in which some branch may follow the truth."""
    num_guesses = draw(st.integers(0, MAX_GUESSES))
    if num_guesses == 0:
        return None
    parents: list[int] = []
    tokens: list[int] = []
    depths: list[int] = []
    for index in range(num_guesses):
        parent = draw(st.integers(-1, index - 1))
        depth = 0 if parent < 0 else depths[parent] + 1
        right = draw(st.booleans()) and depth < len(following)
        tokens.append(following[depth] if right else draw(st.integers(3, 299)))
        parents.append(parent)
        depths.append(depth)
    chain = draw(st.booleans())
    if chain:
        right = [*following, *[0] * MAX_GUESSES][: num_guesses - 1]
        return Draft((*right, tokens[0]))
    return Draft(tuple(tokens), tuple(parents))


def assert_beginnings(feeder: Feeder, wanted: list[list[Sampled]], tolerance: float) -> None:
    for got, full in zip(feeder.sampled, wanted, strict=True):
        pairs = list(zip(got, full, strict=False))
        assert [g.token for g, _ in pairs] == [f.token for _, f in pairs]
        for ours, theirs in pairs:
            assert ours.logprob == pytest.approx(theirs.logprob, abs=tolerance)
            assert [t for t, _ in ours.top] == [t for t, _ in theirs.top]


@pytest.mark.pair("speculation", "grammar")
@pytest.mark.pair("speculation", "batching")
@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(PARAMS)), st.data())
def test_guesses_change_no_token(name: str, data: st.DataObject) -> None:
    wanted, feeder = expected(name), Feeder(PARAMS[name])
    for _ in range(5):
        following = [
            [sampled.token for sampled in full[len(got) :]]
            for got, full in zip(feeder.sampled, wanted, strict=True)
        ]
        drafts = [data.draw(st.composite(guess)(tokens)) for tokens in following]
        drawn = feeder.step(*drafts)
        for tokens in drawn:
            assert tokens
    assert_beginnings(feeder, wanted, 1e-4)


@pytest.mark.parametrize("kind", ["dense", "windows", "latent", "softcap", "sinks"])
@pytest.mark.pair("speculation", "windows")
def test_right_guesses_on_a_branch_of_a_tree_are_all_taken(kind: str) -> None:
    wanted, feeder = expected("greedy", kind), Feeder(GREEDY, kind=kind)
    while len(feeder.sampled[0]) < 24:
        drafts = []
        for got, full in zip(feeder.sampled, wanted, strict=True):
            first, second, third = (sampled.token for sampled in full[len(got) :][:3])
            # The true branch is 1 - 3 - 5; the others begin wrong or end early.
            drafts.append(Draft((0, first, 1, second, 2, third), (-1, -1, 0, 1, 3, 3)))
        drawn = feeder.step(*drafts)
        assert [len(tokens) for tokens in drawn] == [4, 4, 4]
    assert_beginnings(feeder, wanted, 1e-4)


@pytest.mark.pair("speculation", "deterministic")
@pytest.mark.parametrize("shape", ["chain", "tree"])
def test_guesses_keep_every_bit_in_deterministic_mode(shape: str) -> None:
    plain, guessing = (Feeder(PARAMS["seeded"], deterministic=True) for _ in range(2))
    for _ in range(25):
        plain.step()
    for size in (1, 5, 2, 6, 3):
        drafts = []
        for got, full in zip(guessing.sampled, plain.sampled, strict=True):
            tokens = tuple(sampled.token for sampled in full[len(got) :][:size])
            if shape == "tree":  # beside each right guess a wrong one
                tokens = tuple(token for right in tokens for token in (299 - right, right))
                parents = tuple(2 * (index // 2) - 1 for index in range(2 * size))
                drafts.append(Draft(tokens, parents))
            else:
                drafts.append(Draft((*tokens, 9)))
        assert [len(tokens) for tokens in guessing.step(*drafts)] == [size + 1] * 3
    for got, full in zip(guessing.sampled, plain.sampled, strict=True):
        assert got == full[: len(got)]


def test_rows_in_chunks_draw_as_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weft.engine.runner.LOGITS_BYTES", 3 * 4 * 300)
    wanted, feeder = expected("seeded"), Feeder(SEEDED)
    tokens = [[sampled.token for sampled in full[1:4]] for full in wanted]
    drawn = feeder.step(Draft(tuple(tokens[0])), None, Draft(tuple(tokens[2])))
    assert [len(new) for new in drawn] == [4, 1, 4]
    assert_beginnings(feeder, wanted, 1e-4)


def test_a_failure_behind_guesses_that_held_keeps_what_was_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted, feeder = expected("greedy"), Feeder(GREEDY)
    original, num_calls = pipeline.sample, []

    def sample(logits_RV, batch):
        num_calls.append(len(logits_RV))
        if batch.num_rows == 1 and len(num_calls) > 1:
            raise IndexError("the third round is broken")
        return original(logits_RV, batch)

    monkeypatch.setattr(pipeline, "sample", sample)
    first, second = (sampled.token for sampled in wanted[1][1:3])
    drawn = feeder.step(None, Draft((first, second)), None)
    assert num_calls[:2] == [3, 1]
    assert drawn[1] == [first], "the token of the first round"
    monkeypatch.undo()
    assert feeder.step()[1] == [second]
    assert_beginnings(feeder, wanted, 1e-4)


class Recording:
    """A proposer that remembers what it saw and guesses as told."""

    caches = ()

    def __init__(self) -> None:
        self.views: list[StepView] = []
        self.forgotten: list[int] = []
        self.error: Exception | None = None

    def propose(self, view: StepView) -> dict[int, Draft]:
        self.views.append(view)
        if self.error is not None:
            raise self.error
        return {id: Draft((1, 2)) for id in view.walks}

    def forget(self, ids) -> None:
        self.forgotten.extend(ids)


@torch.inference_mode()
def test_a_proposer_sees_the_tokens_that_stay_and_their_hidden_states() -> None:
    proposer = Recording()
    feeder = Feeder(GREEDY, proposer=proposer)
    wanted = expected("greedy")
    tree = [Draft((0, full[1].token), (-1, -1)) for full in wanted]
    feeder.step(*tree)
    first, second = proposer.views
    assert [new.prompt for new in first.new] == PROMPTS
    assert first.kept_rows(first.items[1]) == [4, 5]
    assert second.new == ()
    assert second.first_rows == {0: 0, 1: 3, 2: 6}
    assert second.kept_rows(second.items[2]) == [6, 8], "the last token and the second guess"
    assert second.drawn(2) == tuple(sampled.token for sampled in wanted[2][1:3])
    assert second.hidden_TD.shape == (9, 32)
    logits_RV = feeder.runner._logits(second.hidden_TD[second.kept_rows(second.items[2])])
    assert tuple(logits_RV.argmax(-1).tolist()) == second.drawn(2)
    feeder.runner.forget((0, 1))
    assert proposer.forgotten[-2:] == [0, 1]


def test_a_proposer_that_fails_costs_only_its_guesses() -> None:
    proposer = Recording()
    feeder = Feeder(GREEDY, proposer=proposer)
    proposer.error = ValueError("no idea")
    feeder.step()
    assert feeder.runner.num_failed_proposals == 1
    assert_beginnings(feeder, expected("greedy"), 1e-4)


def test_moving_a_branch_touches_only_its_own_slots() -> None:
    feeder = Feeder(GREEDY)
    wanted = expected("greedy")
    before = [t.clone() for layer in feeder.runner.cache.tokens for t in layer.values()]
    start = len(feeder.tokens[0]) - 1
    feeder.step(Draft((0, wanted[0][1].token), (-1, -1)), None, None)
    after = [t for layer in feeder.runner.cache.tokens for t in layer.values()]
    changed = torch.stack(
        [(a != b).flatten(1).any(1) for a, b in zip(after, before, strict=True)]
    ).any(0)
    places = {
        index: {start_ + step for step in range(count)}
        for index, start_, count in (
            (0, start, 3),
            (1, len(PROMPTS[1]), 1),
            (2, len(PROMPTS[2]), 1),
        )
    }
    slots = {
        feeder.blocks[index][place // BLOCK_SIZE] * BLOCK_SIZE + place % BLOCK_SIZE
        for index, of_sequence in places.items()
        for place in of_sequence
    }
    assert set(changed.nonzero().flatten().tolist()) == slots
