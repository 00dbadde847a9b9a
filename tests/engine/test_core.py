"""Any interleaving of submit, step, abort and new weights leaves nothing behind."""

from __future__ import annotations

import dataclasses

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.engine.support import assert_nothing_left, make_llm
from weft.spec import FinishReason, Request, SamplingParams

_PROMPTS = [[1, 2, 3], [4], list(range(10, 22)), [1, 2, 3, 4, 5, 6, 7]]
_PARAMS = [
    SamplingParams(temperature=0.0, max_tokens=6),
    SamplingParams(seed=3, max_tokens=9, repetition_penalty=1.2, min_tokens=2),
    SamplingParams(seed=4, top_p=0.8, max_tokens=5, stop=("e", "th")),
]
_EXPECTED: dict[tuple[int, int], tuple[int, ...]] = {}


def expected(prompt: int, params: int) -> tuple[int, ...]:
    """Return what the request gives with an engine of its own."""
    key = (prompt, params)
    if key not in _EXPECTED:
        _EXPECTED[key] = make_llm().generate([_PROMPTS[prompt]], _PARAMS[params])[0].tokens
    return _EXPECTED[key]


class EngineMachine(RuleBasedStateMachine):
    """An engine with blocks for about two of its requests."""

    def __init__(self):
        super().__init__()
        self.core = make_llm(num_blocks=8, block_size=4, max_tokens_per_step=9).core
        self.live = {}
        self.num_submitted = 0

    @rule(
        prompt=st.integers(0, len(_PROMPTS) - 1),
        params=st.integers(0, len(_PARAMS) - 1),
        priority=st.integers(0, 1),
    )
    def submit(self, prompt, params, priority):
        id = str(self.num_submitted)
        self.num_submitted += 1
        wanted = Request(id, tuple(_PROMPTS[prompt]), _PARAMS[params], priority=priority)
        self.live[id] = (prompt, params, self.core.submit(wanted))

    @rule()
    def step(self):
        for delta in self.core.step():
            if delta.finish_reason is not None:
                self.finish(delta)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def abort(self, data):
        id = data.draw(st.sampled_from(sorted(self.live)))
        delta = self.core.abort(id)
        assert delta.finish_reason is FinishReason.ABORT
        assert self.core.abort(id) is None
        prompt, params, stream = self.live.pop(id)
        drawn = stream.completion().tokens
        assert drawn == expected(prompt, params)[: len(drawn)]

    @rule()
    def bump(self):
        self.core.bump_weight_version()

    def finish(self, delta):
        prompt, params, stream = self.live.pop(delta.request_id)
        assert stream.completion().tokens == expected(prompt, params)

    @invariant()
    def consistent(self):
        self.core.scheduler.check()
        assert self.core.num_unfinished == len(self.live)

    def teardown(self):
        for _ in range(2000):
            if not self.core.has_work:
                break
            self.step()
        assert not self.live
        assert_nothing_left(self.core)


EngineMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestEngine = EngineMachine.TestCase


def test_stop_text_and_length_in_one_step_count_once():
    core = make_llm().core
    first = Request("a", (1, 2, 3), dataclasses.replace(_PARAMS[0], ignore_eos=True))
    core.submit(first)
    while core.has_work:
        core.step()
    assert sum(core.stats().scheduler.counters.num_finished.values()) == 1
    assert_nothing_left(core)
