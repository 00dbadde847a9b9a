"""A runner without a model whose cache remembers what a real one would have computed.

The "keys and values" of a position are a fold of every token up to it, so a block that was
overwritten, shared wrongly or never computed is noticed at the first read, as attention would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tests.sched.fake_tiers import FakeStates, FakeTiers
from weft.sched.config import SchedulerConfig
from weft.sched.plan import (
    PENDING,
    Draft,
    NewSequence,
    Sampled,
    StepItem,
    StepPlan,
    StepResult,
)
from weft.spec.request import Request


class Entry(NamedTuple):
    state: int
    owner: tuple[str, str]
    weight_version: int


def fold(state: int, token: int) -> int:
    return hash((state, token))


def fold_all(tokens: list[int] | tuple[int, ...]) -> list[int]:
    states, state = [], 0
    for token in tokens:
        state = fold(state, token)
        states.append(state)
    return states


def next_token(seed: int, sequence: int, state: int, num_tokens: int, vocab_size: int) -> int:
    """The fake model: a function of everything before and of the random stream's key."""
    return hash((seed, sequence, state, num_tokens)) % vocab_size


class History:
    """What a runner keeps of one sequence."""

    def __init__(self, new: NewSequence, owner: tuple[str, str], vocab_size: int) -> None:
        self.new = new
        self.owner = owner
        self.vocab_size = vocab_size
        self.tokens = list(new.prompt)
        self.states = fold_all(new.prompt)
        self.num_computed = 0
        self.failed = False

    def draw(self, state: int, num_tokens: int) -> int:
        return next_token(self.new.seed, self.new.sequence, state, num_tokens, self.vocab_size)

    def append(self, token: int) -> None:
        self.states.append(fold(self.states[-1], token))
        self.tokens.append(token)


class FakeRunner:
    """Executes plans and asserts everything a plan promises."""

    def __init__(
        self, config: SchedulerConfig, requests: dict[str, Request], vocab_size: int = 50
    ) -> None:
        self.config = config
        self.requests = requests
        self.vocab_size = vocab_size
        self.weight_version = 0
        self.plans: list[StepPlan] = []
        self.sequences: dict[int, History] = {}
        self.during_step: Callable[[StepPlan], None] = lambda plan: None
        self.propose: Callable[[History], Draft | None] = lambda history: None
        self.failing: set[str] = set()
        self.num_guesses = 0
        self.num_guesses_held = 0
        self.num_copies = 0
        self._seen: set[int] = set()
        self._cache: dict[int, Entry] = {}
        self._holding: set[int] = set()
        self.tiers: FakeTiers[Entry] = FakeTiers(config.block_size)
        self._running_states = FakeStates() if config.snapshots is not None else None
        self._lost: dict[int, str] = {}

    def execute(self, plan: StepPlan) -> StepResult:
        self.plans.append(plan)
        self.forget(plan.finished)
        for new in plan.new:
            assert new.id not in self._seen, "a sequence is introduced once"
            self._seen.add(new.id)
            request = self.requests[new.request_id]
            owner = request.cache_salt, request.adapter
            self.sequences[new.id] = History(new, owner, self.vocab_size)
        self._check_plan(plan)
        self._check_holding(plan)
        self._move_blocks(plan)
        self.during_step(plan)
        items = [item for item in plan.items if not self._has_failed(item)]
        lost = {item.id: self._lost[item.id] for item in items if item.id in self._lost}
        items = [item for item in items if item.id not in lost]
        # As a layer does: all keys and values of the step are written before any is read.
        for item in items:
            self._write(item)
        for item in items:
            self._read(item)
        self._continue_states(plan, items)
        errors = {item.id: "it broke" for item in plan.items if self.sequences[item.id].failed}
        result = self._sample(items, errors)
        return replace(result, lost=lost, disk_error=self.tiers.disk_error)

    def forget(self, ids: tuple[int, ...]) -> None:
        self._holding -= set(ids)
        for id_ in ids:
            del self.sequences[id_]
            self._lost.pop(id_, None)

    def _check_plan(self, plan: StepPlan) -> None:
        assert 0 < plan.num_tokens <= self.config.max_tokens_per_step
        assert len(plan.items) <= self.config.max_num_sequences
        assert all(item.tokens for item in plan.items), "a cache hit leaves a token to compute"
        assert len({item.id for item in plan.items}) == len(plan.items)
        assert {new.id for new in plan.new} <= {item.id for item in plan.items}
        ring = self.config.ring_blocks
        kept = self.config.sink_blocks + (ring or 0)
        assert ring is None or all(len(set(item.blocks)) <= kept for item in plan.items)
        written = [slot for item in plan.items for slot in self._written_slots(item)]
        assert len(written) == len(set(written)), "two sequences write the same slot"

    def _check_holding(self, plan: StepPlan) -> None:
        """Whoever keeps more of a sequence than its tokens has to do so for few at a time."""
        computed = {item.id for item in plan.items}
        assert set(plan.preempted) <= self._holding, "only running sequences give way"
        self._holding = self._holding - set(plan.preempted) | computed
        assert len(self._holding) <= self.config.max_num_sequences
        for id_ in plan.preempted:
            self.sequences[id_].num_computed = -1

    def _has_failed(self, item: StepItem) -> bool:
        history = self.sequences[item.id]
        history.failed |= history.new.request_id in self.failing
        return history.failed

    def _move_blocks(self, plan: StepPlan) -> None:
        """Move blocks; whoever misses one stays lost until it has given its blocks back."""
        for id_ in plan.preempted:
            self._lost.pop(id_, None)
        self.num_copies += len(plan.blocks.copies)
        lost_blocks = self.tiers.move(plan.blocks, self._cache)
        for item in plan.items:
            read = item.blocks[: -(-item.start // self.config.block_size)]
            if lost_blocks & set(read):
                self._lost[item.id] = "its blocks could not be read"

    def _continue_states(self, plan: StepPlan, items: list[StepItem]) -> None:
        if self._running_states is not None:
            self._running_states.begin(plan)
            for item in items:
                self._running_states.advance(item, self.sequences[item.id].states)
            self._running_states.end(plan.states, items)

    def _slot(self, item: StepItem, position: int) -> int:
        size = self.config.block_size
        return item.blocks[position // size] * size + position % size

    def _written_slots(self, item: StepItem) -> list[int]:
        return [self._slot(item, item.start + i) for i in range(item.num_tokens)]

    def _write(self, item: StepItem) -> None:
        history = self.sequences[item.id]
        end = item.start + len(item.tokens)
        for position in range(item.start, end):
            self._put(item, position, history.states[position])
        if item.draft is not None:
            for index, state in enumerate(self._draft_states(item)):
                self._put(item, end + index, state)

    def _put(self, item: StepItem, position: int, state: int) -> None:
        owner = self.sequences[item.id].owner
        self._cache[self._slot(item, position)] = Entry(state, owner, self.weight_version)

    def _draft_states(self, item: StepItem) -> list[int]:
        """The state after each guess, whose parent may be any guess before it."""
        assert item.draft is not None
        last = self.sequences[item.id].states[item.start + len(item.tokens) - 1]
        states: list[int] = []
        for index, token in enumerate(item.draft.tokens):
            parent = parent_of(item.draft, index)
            states.append(fold(last if parent < 0 else states[parent], token))
        return states

    def _read(self, item: StepItem) -> None:
        history = self.sequences[item.id]
        end = item.start + len(item.tokens)
        tokens = list(item.tokens)
        if tokens[-1] == PENDING:
            assert end == len(history.tokens), "the token drawn last is the last one"
            tokens[-1] = history.tokens[-1]
        assert history.tokens[item.start : end] == tokens
        assert item.sample == (end == len(history.tokens))
        window = self.config.window
        first = 0 if window is None else max(item.start - window + 1, 0)
        sinks = range(min(self.config.num_sinks, first))
        for position in (*sinks, *range(first, item.start)):
            entry = self._cache[self._slot(item, position)]
            assert entry.state == history.states[position], "somebody else's keys and values"
            assert entry.owner == history.owner, "a prefix crossed tenants or adapters"
            if item.start != history.num_computed:
                assert entry.weight_version == self.weight_version, "a prefix of older weights"
        history.num_computed = end

    def _sample(self, items: list[StepItem], errors: dict[int, str]) -> StepResult:
        result = StepResult({}, errors)
        for item in items:
            if item.sample:
                history = self.sequences[item.id]
                result.tokens[item.id] = self._draw(item, history)
                draft = self.propose(history)
                if draft is not None:
                    result.drafts[item.id] = draft
        return result

    def _draw(self, item: StepItem, history: History) -> tuple[Sampled, ...]:
        """Draw a token; while it was guessed, move its state into place and draw another."""
        drawn, parent = [], -1
        draft = item.draft or Draft(())
        num_guesses_held = 0
        while True:
            token = history.draw(history.states[-1], len(history.tokens))
            history.append(token)
            drawn.append(Sampled(token, -1.0))
            children = (i for i in range(len(draft.tokens)) if parent_of(draft, i) == parent)
            parent = next((i for i in children if draft.tokens[i] == token), None)
            if parent is None:
                break
            self._put(item, len(history.tokens) - 1, history.states[-1])
            num_guesses_held += 1
        self.num_guesses += len(draft.tokens)
        self.num_guesses_held += num_guesses_held
        history.num_computed += num_guesses_held
        return tuple(drawn)


def parent_of(draft: Draft, index: int) -> int:
    return draft.parents[index] if draft.parents else index - 1
