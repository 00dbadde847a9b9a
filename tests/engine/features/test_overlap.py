"""Scheduling a step while the one before is computed changes no token and leaves nothing behind."""

from __future__ import annotations

import _thread
import asyncio
import dataclasses
import threading

import pytest

from tests.engine.features.support import (
    GREEDY,
    PENALISED,
    SEEDED,
    assert_same,
    completions,
    config,
    core_of,
    requests,
    tiny,
)
from tests.engine.support import assert_nothing_left, make_prompts, tokenizer
from weft.engine.async_engine import AsyncEngine
from weft.engine.llm import LLM
from weft.engine.sampling import pipeline
from weft.spec import FinishReason, SamplingParams
from weft.spec.request import Request
from weft.spec.structured import Choice, Regex

KINDS = ["dense", "windows", "ring", "latent", "softcap", "gated-delta", "rwkv"]
GRAMMAR = dataclasses.replace(SEEDED, structured=Regex("[a-z]{2,8}( [a-z]{2,8}){2}"), max_tokens=40)


def assert_same_at_both_depths(wanted, *, decoder=None, stagger=0, abs=1e-4, **settings):
    plain = config(**settings)
    overlapped = dataclasses.replace(plain, overlap_depth=1)
    got = completions(overlapped, wanted, decoder=decoder, stagger=stagger)
    expected = completions(plain, wanted, decoder=decoder, stagger=stagger)
    assert_same(got, expected, abs=abs)
    return got


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stagger", [0, 1])
@pytest.mark.pair("overlap", "batching")
@pytest.mark.pair("overlap", "states")
@pytest.mark.pair("overlap", "windows")
def test_every_kind_of_request(kind, stagger):
    wanted = requests([GREEDY, SEEDED, PENALISED] * 2)
    cache = kind != "ring"
    decoder = tiny(kind)
    assert_same_at_both_depths(wanted, decoder=decoder, stagger=stagger, enable_prefix_cache=cache)


@pytest.mark.parametrize("max_tokens_per_step", [1, 3, 7])
@pytest.mark.pair("overlap", "chunking")
def test_prompts_in_chunks(max_tokens_per_step):
    wanted = requests([GREEDY, SEEDED, PENALISED] * 2)
    assert_same_at_both_depths(wanted, max_tokens_per_step=max_tokens_per_step)


@pytest.mark.parametrize("params", [GREEDY, SEEDED, PENALISED], ids=["greedy", "seeded", "penal"])
@pytest.mark.pair("overlap", "preemption")
def test_preempted_requests(params):
    params = dataclasses.replace(params, max_tokens=12, ignore_eos=True)
    wanted = requests(params, prompts=[[index + 1] * 9 for index in range(3)])
    core = core_of(config(num_blocks=9, overlap_depth=1))
    got = completions(core, wanted)
    assert core.stats().scheduler.counters.num_preemptions > 0
    assert_same(got, completions(config(), wanted))


@pytest.mark.pair("overlap", "cache")
def test_prefixes_are_found_while_steps_overlap():
    prompt = make_prompts()[5] * 2
    wanted = requests(prompts=[prompt, prompt])
    got = assert_same_at_both_depths(wanted, stagger=4)
    assert got[1].num_cached_tokens > 0


@pytest.mark.pair("overlap", "grammar")
def test_grammars():
    choice = SamplingParams(temperature=0.0, structured=Choice(("weft", "warp and weft")))
    got = assert_same_at_both_depths(requests([GRAMMAR, GREEDY, choice, SEEDED, GRAMMAR, choice]))
    assert tokenizer().decode(got[2].tokens) in ("weft", "warp and weft")


def test_stop_texts_bad_words_and_log_probabilities():
    base = dataclasses.replace(SEEDED, max_tokens=30, logprobs=3)
    wanted = requests(
        [
            dataclasses.replace(base, stop=("e", "th")),
            dataclasses.replace(base, stop=("o",), min_tokens=6),
            dataclasses.replace(base, bad_words=((7,), (20, 30))),
            dataclasses.replace(base, logit_bias=((5, 4.0),)),
            dataclasses.replace(base, prompt_logprobs=2),
            dataclasses.replace(base, stop_token_ids=tuple(range(40, 60))),
        ]
    )
    got = assert_same_at_both_depths(wanted)
    assert FinishReason.STOP in {completion.finish_reason for completion in got}
    expected = completions(config(), wanted)
    assert [c.prompt_logprobs is not None for c in got] == [False] * 4 + [True, False]
    for ours, theirs in zip(got, expected, strict=True):
        assert [t for top in ours.top_logprobs for t, _ in top] == [
            t for top in theirs.top_logprobs for t, _ in top
        ]
        assert (ours.prompt_logprobs is None) or [p and p.rank for p in ours.prompt_logprobs] == [
            p and p.rank for p in theirs.prompt_logprobs
        ]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 8])
def test_an_aborted_request_disturbs_no_other(num_steps):
    wanted = requests([GREEDY, SEEDED, GRAMMAR, PENALISED, GREEDY, SEEDED])
    expected = completions(config(), wanted)
    core = core_of(config(overlap_depth=1))
    streams = [core.submit(request) for request in wanted]
    for _ in range(num_steps):
        core.step()
    for id in ("2", "4"):
        if streams[int(id)].finish_reason is None:
            core.abort(id)
    late = core.submit(Request("late", (1, 2, 3), GREEDY))
    core.abort("late")
    while core.has_work:
        core.step()
    assert_nothing_left(core)
    assert late.completion().finish_reason is FinishReason.ABORT
    for index, stream in enumerate(streams):
        got = stream.completion()
        if index in (2, 4):
            assert got.tokens == expected[index].tokens[: len(got.tokens)]
        else:
            assert_same([got], [expected[index]])


def test_an_exception_in_the_thread_ends_the_step_and_the_engine_goes_on():
    wanted = requests(SEEDED)
    expected = completions(config(), wanted)
    core = core_of(config(overlap_depth=1))
    handle = core.model.register_forward_pre_hook(_raise)
    streams = [core.submit(request) for request in wanted]
    try:
        for _ in range(2):
            core.step()
    finally:
        handle.remove()
    assert isinstance(core.last_failure, RuntimeError)
    while core.has_work:
        core.step()
    assert_nothing_left(core)
    assert core.num_failed_steps == 1
    assert {stream.completion().error for stream in streams} == {"RuntimeError: broken"}
    assert_same(completions(core, wanted), expected)


def _raise(module, args):
    raise RuntimeError("broken")


def test_what_fails_in_one_request_ends_only_that_one(monkeypatch):
    original = pipeline.sample

    def sample(logits_RV, batch):
        if (batch.min_p_R == 0.125).any():
            raise IndexError("one row is broken")
        return original(logits_RV, batch)

    wanted = requests([GREEDY, SEEDED] * 3)
    expected = completions(config(), wanted)
    wanted[2] = dataclasses.replace(wanted[2], sampling=SamplingParams(min_p=0.125))
    monkeypatch.setattr(pipeline, "sample", sample)
    got = completions(config(overlap_depth=1), wanted)
    assert got[2].error == "sampling failed: IndexError: one row is broken"
    assert_same([*got[:2], *got[3:]], [*expected[:2], *expected[3:]])


def test_a_request_that_cannot_be_prepared_fails_alone():
    wanted = requests([GREEDY, GRAMMAR, SEEDED], prompts=make_prompts(3))
    core = core_of(config(overlap_depth=1))
    streams = [core.submit(request) for request in wanted]
    core.runner.table.grammars.drop("1")  # as if it were aborted between plan and step
    while core.has_work:
        core.step()
    assert_nothing_left(core)
    got = [stream.completion() for stream in streams]
    assert got[1].error.startswith("preparing to sample failed: KeyError")
    expected = completions(config(), [wanted[0], wanted[2]])
    assert_same([got[0], got[2]], expected)


def test_an_async_engine_overlaps_steps_and_settles_them_for_who_comes_between():
    wanted = requests(GREEDY)
    expected = completions(config(), wanted)

    async def serve():
        engine = AsyncEngine(tiny(), tokenizer(), config(overlap_depth=1))
        try:
            streams = [await engine.submit(request) for request in wanted]
            in_flight = await engine.run_between_steps(lambda: engine.core.loop.num_in_flight)
            tokens = [[delta.token async for delta in stream] for stream in streams]
        finally:
            await engine.close()
        engine.core.scheduler.check()
        assert engine.core.num_unfinished == 0
        return in_flight, tokens

    in_flight, tokens = asyncio.run(serve())
    assert in_flight == 0
    assert [tuple(drawn) for drawn in tokens] == [completion.tokens for completion in expected]


# The timeline.


class Timeline:
    """Notes when steps are scheduled, begin and end; can hold a step until another is scheduled."""

    def __init__(self, core, *, hold: bool) -> None:
        self.events: list[tuple[str, int]] = []
        self.late: list[int] = []
        self._hold = hold
        self._scheduled = threading.Condition()
        self._num_scheduled = 0
        self._schedule, self._execute = core.scheduler.schedule, core.runner.execute
        core.scheduler.schedule, core.runner.execute = self.schedule, self.execute

    def schedule(self, now_s):
        plan = self._schedule(now_s)
        with self._scheduled:
            self.events.append(("schedule", plan.step))
            self._num_scheduled = plan.step + 1
            self._scheduled.notify_all()
        return plan

    def execute(self, plan):
        with self._scheduled:
            self.events.append(("begin", plan.step))
            if self._hold and not self._scheduled.wait_for(
                lambda: self._num_scheduled > plan.step + 1, timeout=30
            ):
                self.late.append(plan.step)
        result = self._execute(plan)
        with self._scheduled:
            self.events.append(("end", plan.step))
        return result


def test_a_step_is_scheduled_while_the_one_before_is_computed():
    core = core_of(config(overlap_depth=1))
    # Every step waits until its successor is scheduled; without overlap none would ever come.
    timeline = Timeline(core, hold=True)
    completions(core, requests(GREEDY))
    assert timeline.late == []
    steps = [step for event, step in timeline.events if event == "begin"]
    assert len(steps) > 10
    for step in steps:
        scheduled = timeline.events.index(("schedule", step + 1))
        assert timeline.events.index(("begin", step)) < timeline.events.index(("end", step))
        assert scheduled < timeline.events.index(("end", step))


def test_without_overlap_a_step_is_scheduled_behind_the_one_before():
    core = core_of(config(overlap_depth=0))
    timeline = Timeline(core, hold=False)
    completions(core, requests(GREEDY))
    order = [event for event in timeline.events if event[1] < 5]
    assert order == [(event, n) for n in range(5) for event in ("schedule", "begin", "end")]


# Ctrl-C.


@pytest.mark.parametrize("depth", [0, 1])
def test_ctrl_c_while_a_step_is_computed_leaves_no_block_behind(depth):
    llm = LLM(tiny(), tokenizer(), config(overlap_depth=depth))
    execute, num_calls = llm.core.runner.execute, []

    def interrupted(plan):
        num_calls.append(plan.step)
        if len(num_calls) == 4:
            _thread.interrupt_main()  # what the signal handler does
            if depth:
                threading.Event().wait(0.05)
        return execute(plan)

    llm.core.runner.execute = interrupted
    prompts = [list(prompt) for prompt in make_prompts()]
    with pytest.raises(KeyboardInterrupt):
        llm.generate(prompts, GREEDY)
    assert_nothing_left(llm.core)
    llm.core.runner.execute = execute
    expected = LLM(tiny(), tokenizer(), config()).generate(prompts, GREEDY)
    assert_same(llm.generate(prompts, GREEDY), expected)
    assert_nothing_left(llm.core)


def test_an_interrupt_raised_in_the_thread_reaches_the_caller():
    llm = LLM(tiny(), tokenizer(), config(overlap_depth=1))
    execute = llm.core.runner.execute

    def interrupted(plan):
        if plan.step == 2:
            raise KeyboardInterrupt
        return execute(plan)

    llm.core.runner.execute = interrupted
    with pytest.raises(KeyboardInterrupt):
        llm.generate(make_prompts(), GREEDY)
    assert_nothing_left(llm.core)
