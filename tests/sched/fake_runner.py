"""A runner without a model whose cache remembers what a real one would have computed.

The "keys and values" of a position are a fold of every token up to it, so a block that was
overwritten, shared wrongly or never computed is noticed at the first read, as attention would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from weft.sched.config import SchedulerConfig
from weft.sched.plan import NewSequence, Sampled, StepItem, StepPlan, StepResult
from weft.sched.slots import slot_mapping
from weft.spec.request import Request


class Entry(NamedTuple):
    state: int
    salt: str
    weight_version: int


def fold(state: int, token: int) -> int:
    return hash((state, token))


def fold_all(tokens: list[int] | tuple[int, ...]) -> list[int]:
    states, state = [], 0
    for token in tokens:
        state = fold(state, token)
        states.append(state)
    return states


def next_token(seed: int, sequence: int, states: list[int], vocab_size: int) -> int:
    """The fake model: a function of everything before and of the random stream's key."""
    return hash((seed, sequence, states[-1], len(states))) % vocab_size


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
        self.sequences: dict[int, NewSequence] = {}
        self.during_step: Callable[[StepPlan], None] = lambda plan: None
        self.failing: set[str] = set()
        self._tokens: dict[int, list[int]] = {}
        self._states: dict[int, list[int]] = {}
        self._num_computed: dict[int, int] = {}
        self._seen: set[int] = set()
        self._cache: dict[int, Entry] = {}
        self._holding: set[int] = set()

    def execute(self, plan: StepPlan) -> StepResult:
        self.plans.append(plan)
        self.forget(plan.finished)
        for new in plan.new:
            assert new.id not in self._seen, "a sequence is introduced once"
            self._seen.add(new.id)
            self.sequences[new.id] = new
            self._tokens[new.id] = list(new.prompt)
            self._states[new.id] = fold_all(new.prompt)
            self._num_computed[new.id] = 0
        self._check_plan(plan)
        self._check_holding(plan)
        # As a layer does: all keys and values of the step are written before any is read.
        for item in plan.items:
            self._write(item)
        for item in plan.items:
            self._read(item)
        self.during_step(plan)
        return self._sample(plan)

    def forget(self, ids: tuple[int, ...]) -> None:
        self._holding -= set(ids)
        for id_ in ids:
            del self.sequences[id_], self._tokens[id_], self._states[id_], self._num_computed[id_]

    def _check_plan(self, plan: StepPlan) -> None:
        assert 0 < plan.num_tokens <= self.config.max_tokens_per_step
        assert len(plan.items) <= self.config.max_num_sequences
        assert all(item.tokens for item in plan.items), "a cache hit leaves a token to compute"
        assert len({item.id for item in plan.items}) == len(plan.items)
        assert {new.id for new in plan.new} <= {item.id for item in plan.items}
        ring = self.config.ring_blocks
        assert ring is None or all(len(set(item.blocks)) <= ring for item in plan.items)
        written = [slot for item in plan.items for slot in self._slots(item)[item.start :]]
        assert len(written) == len(set(written)), "two sequences write the same slot"

    def _check_holding(self, plan: StepPlan) -> None:
        """Whoever keeps more of a sequence than its tokens has to do so for few at a time."""
        computed = {item.id for item in plan.items}
        assert set(plan.preempted) <= self._holding, "only running sequences give way"
        assert not computed & set(plan.preempted)
        self._holding = self._holding - set(plan.preempted) | computed
        assert len(self._holding) <= self.config.max_num_sequences

    def _slots(self, item: StepItem) -> list[int]:
        num_tokens = item.start + len(item.tokens)
        return slot_mapping(item.blocks, self.config.block_size, num_tokens).tolist()

    def _read(self, item: StepItem) -> None:
        new, tokens = self.sequences[item.id], self._tokens[item.id]
        end = item.start + len(item.tokens)
        assert tuple(tokens[item.start : end]) == item.tokens
        assert item.sample == (end == len(tokens))
        window = self.config.window
        first = 0 if window is None else max(item.start - window + 1, 0)
        entries = [self._cache[slot] for slot in self._slots(item)[first : item.start]]
        assert [entry.state for entry in entries] == self._states[item.id][first : item.start]
        salt = self.requests[new.request_id].cache_salt
        assert all(entry.salt == salt for entry in entries), "a prefix crossed tenants"
        if item.start != self._num_computed[item.id] or item.start == 0:
            versions = {entry.weight_version for entry in entries}
            assert versions <= {self.weight_version}, "a prefix of older weights was reused"
        self._num_computed[item.id] = end

    def _write(self, item: StepItem) -> None:
        salt = self.requests[self.sequences[item.id].request_id].cache_salt
        slots = self._slots(item)
        for position in range(item.start, len(slots)):
            state = self._states[item.id][position]
            self._cache[slots[position]] = Entry(state, salt, self.weight_version)

    def _sample(self, plan: StepPlan) -> StepResult:
        drawn, errors = {}, {}
        for item in plan.items:
            new = self.sequences[item.id]
            if new.request_id in self.failing:
                errors[item.id] = "it broke"
            elif item.sample:
                states = self._states[item.id]
                token = next_token(new.seed, new.sequence, states, self.vocab_size)
                drawn[item.id] = (Sampled(token, -1.0),)
                self._tokens[item.id].append(token)
                states.append(fold(states[-1], token))
        return StepResult(drawn, errors)
