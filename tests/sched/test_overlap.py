"""Steps are planned while earlier ones are computed, and nothing of what fails or ends is kept."""

from __future__ import annotations

import pytest

from tests.sched.fake_runner import FakeRunner
from tests.sched.test_scheduler import BASE, counts, make, submit
from weft.sched.config import SchedulerConfig
from weft.sched.launch import LaunchedInThread, LaunchedLazily
from weft.sched.loop import ServingLoop, VirtualClock
from weft.sched.plan import PENDING, Draft, Sampled, StepPlan, StepResult
from weft.sched.scheduler import Scheduler
from weft.spec.request import FinishReason, Request
from weft.spec.sampling import SamplingParams


def drawn(plan: StepPlan, token: int = 9) -> StepResult:
    return StepResult({item.id: (Sampled(token, 0.0),) for item in plan.items if item.sample})


def test_the_token_of_a_step_in_flight_is_pending_in_the_next():
    scheduler = make()
    submit(scheduler, "a", 3)
    first, second, third = (scheduler.schedule(0.0) for _ in range(3))
    spans = [(p.items[0].tokens, p.items[0].start) for p in (second, third)]
    assert spans == [((PENDING,), 3), ((PENDING,), 4)]
    scheduler.check()
    for plan in (first, second, third):
        (update,) = scheduler.settle(plan, drawn(plan), 0.0)
        assert update.token == 9
        scheduler.check()
    assert scheduler.schedule(0.0).items[0].tokens == (9,)


def test_chunks_of_a_prompt_follow_each_other_in_flight():
    scheduler = make(long_prefill_threshold=3)
    submit(scheduler, "a", 7)
    items = [scheduler.schedule(0.0).items[0] for _ in range(4)]
    assert [(item.start, len(item.tokens), item.sample) for item in items] == [
        (0, 3, False),
        (3, 3, False),
        (6, 1, True),
        (7, 1, True),
    ]


def test_plans_are_settled_in_their_order():
    scheduler = make()
    submit(scheduler, "a", 3)
    scheduler.schedule(0.0)
    second = scheduler.schedule(0.0)
    with pytest.raises(AssertionError, match="step 0 comes before step 1"):
        scheduler.settle(second, drawn(second), 0.0)


def test_a_sequence_sure_to_end_is_not_planned_again():
    scheduler = make()
    submit(scheduler, "a", 3, sampling={"max_tokens": 2})
    plans = [scheduler.schedule(0.0) for _ in range(3)]
    assert [len(plan.items) for plan in plans] == [1, 1, 0]


def test_what_follows_an_end_in_flight_is_dropped():
    scheduler = make()
    submit(scheduler, "a", 3, sampling={"stop_token_ids": (9,)})
    first, second = scheduler.schedule(0.0), scheduler.schedule(0.0)
    (update,) = scheduler.settle(first, drawn(first), 0.0)
    assert update.finish_reason is FinishReason.STOP
    assert scheduler.settle(second, drawn(second), 0.0) == []
    assert scheduler.schedule(0.0).finished == (0,)
    assert not scheduler.has_work
    assert scheduler.stats().num_used_blocks == 0


def test_an_error_in_an_earlier_step_drops_the_later_one():
    scheduler = make()
    submit(scheduler, "a", 3)
    submit(scheduler, "b", 3)
    first, second = scheduler.schedule(0.0), scheduler.schedule(0.0)
    result = StepResult({1: (Sampled(9, 0.0),)}, errors={0: "it broke"})
    ended, going_on = scheduler.settle(first, result, 0.0)
    assert (ended.request_id, ended.finish_reason) == ("a", FinishReason.ERROR)
    assert (going_on.request_id, going_on.token) == ("b", 9)
    (update,) = scheduler.settle(second, drawn(second), 0.0)
    assert update.request_id == "b"
    scheduler.check()


def test_a_sequence_preempted_in_flight_keeps_its_token_and_is_computed_again():
    scheduler = make(num_blocks=3, block_size=10, max_tokens_per_step=64, enable_prefix_cache=False)
    submit(scheduler, "a", 9)
    submit(scheduler, "b", 10)
    first, second = scheduler.schedule(0.0), scheduler.schedule(0.0)
    third = scheduler.schedule(0.0)
    assert (counts(third), third.preempted) == ({0: 1}, (1,))
    for plan in (first, second):
        assert len(scheduler.settle(plan, drawn(plan), 0.0)) == 2
        scheduler.check()
    scheduler.settle(third, drawn(third), 0.0)
    scheduler.finish("a", FinishReason.ABORT)
    (item,) = scheduler.schedule(0.0).items
    assert (item.id, item.start, item.tokens[-2:]) == (1, 0, (9, 9))


def test_a_sequence_preempted_in_flight_may_end_while_it_waits():
    scheduler = make()
    submit(scheduler, "a", 3, sampling={"max_tokens": 1})
    plan = scheduler.schedule(0.0)
    assert scheduler.retract() == ("a",)
    scheduler.check()
    assert scheduler.schedule(0.0).items == (), "its next token is not known yet"
    (update,) = scheduler.settle(plan, drawn(plan), 0.0)
    assert update.finish_reason is FinishReason.LENGTH
    assert scheduler.stats().num_waiting == 0
    scheduler.check()


def test_nothing_follows_a_draft_before_it_is_verified():
    scheduler = make(max_draft=2)
    submit(scheduler, "a", 3)
    plan = scheduler.schedule(0.0)
    scheduler.settle(plan, StepResult({0: (Sampled(9, 0.0),)}, drafts={0: Draft((8, 7))}), 0.0)
    verifying = scheduler.schedule(0.0)
    assert verifying.items[0].draft == Draft((8, 7))
    waiting = scheduler.schedule(0.0)
    assert waiting.items == ()
    scheduler.settle(verifying, StepResult({0: (Sampled(8, 0.0), Sampled(1, 0.0))}), 0.0)
    scheduler.settle(waiting, StepResult({}), 0.0)
    assert scheduler.schedule(0.0).items[0].start == 5


def test_a_draft_that_comes_too_late_is_dropped():
    scheduler = make(max_draft=2)
    submit(scheduler, "a", 3)
    first, second = scheduler.schedule(0.0), scheduler.schedule(0.0)
    scheduler.settle(first, StepResult({0: (Sampled(9, 0.0),)}, drafts={0: Draft((8,))}), 0.0)
    assert scheduler.schedule(0.0).items[0].draft is None
    scheduler.settle(second, drawn(second), 0.0)


def test_retract_takes_all_blocks_and_the_next_step_begins_again():
    scheduler = make()
    submit(scheduler, "a", 3)
    submit(scheduler, "b", 3)
    plan = scheduler.schedule(0.0)
    scheduler.settle(plan, drawn(plan), 0.0)
    assert scheduler.retract() == ("a", "b")
    assert scheduler.stats().num_used_blocks == 0
    assert scheduler.stats().num_waiting == 2
    plan = scheduler.schedule(0.0)
    assert sorted(plan.preempted) == [0, 1]
    assert counts(plan) == {0: 4, 1: 4}
    assert scheduler.retract() == ("a", "b")
    assert scheduler.finish("a", FinishReason.ABORT) is not None
    scheduler.settle(plan, drawn(plan), 0.0)
    assert scheduler.schedule(0.0).preempted == (1,), "the runner forgets the other one at once"


CONFIG = SchedulerConfig(num_blocks=16, max_context=32, block_size=2, max_num_sequences=4)
REQUESTS = [
    Request(f"r{i}", (1, 2, 3 + i), SamplingParams(max_tokens=4 + i, seed=i)) for i in range(6)
]


def serve(depth: int, launched: type[LaunchedLazily | LaunchedInThread]) -> dict[str, list[int]]:
    launcher = launched(FakeRunner(CONFIG, {request.id: request for request in REQUESTS}))
    loop = ServingLoop(Scheduler(CONFIG), launcher, VirtualClock(), depth=depth)
    outputs: dict[str, list[int]] = {request.id: [] for request in REQUESTS}
    for request in REQUESTS:
        loop.submit(request)
    while loop.has_work:
        for update in loop.step():
            assert update.token is not None, loop.failure
            outputs[update.request_id].append(update.token)
        loop.scheduler.check()
    if isinstance(launcher, LaunchedInThread):
        launcher.close()
    return outputs


@pytest.mark.parametrize("launched", [LaunchedLazily, LaunchedInThread])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_tokens_are_the_same_at_any_depth(depth, launched):
    assert serve(depth, launched) == serve(0, LaunchedLazily)


def test_a_step_returns_the_news_of_the_step_before():
    runner = FakeRunner(BASE, {request.id: request for request in REQUESTS})
    loop = ServingLoop(Scheduler(BASE), runner, VirtualClock(), depth=1)
    loop.submit(REQUESTS[0])
    assert loop.step() == []
    assert loop.num_in_flight == 1
    assert len(loop.step()) == 1
    assert len(loop.drain()) == 1
    assert loop.num_in_flight == 0
    assert loop.drain() == []


def test_a_step_that_fails_takes_down_the_one_behind_it_and_the_loop_lives():
    runner = FakeRunner(BASE, {request.id: request for request in REQUESTS})
    loop = ServingLoop(Scheduler(BASE), runner, VirtualClock(), depth=1)
    loop.submit(REQUESTS[0])
    loop.step()

    def fail(plan: StepPlan) -> None:
        raise RuntimeError("out of memory")

    runner.during_step = fail
    (update,) = loop.step()
    assert update.finish_reason is FinishReason.ERROR
    assert isinstance(loop.failure, RuntimeError)
    runner.failing.add(REQUESTS[0].id)  # its PENDING token was never drawn
    runner.during_step = lambda plan: None
    loop.submit(REQUESTS[1])
    while loop.has_work:
        updates = loop.step()
    assert updates == []
    assert loop.scheduler.stats().counters.num_finished[FinishReason.LENGTH] == 1
    loop.scheduler.check()


def test_what_a_launch_raises_is_a_failed_step():
    class Broken:
        def launch(self, plan: StepPlan) -> None:
            raise RuntimeError("no thread")

    loop = ServingLoop(Scheduler(BASE), Broken(), VirtualClock())
    loop.submit(REQUESTS[0])
    (update,) = loop.step()
    assert update.error == "RuntimeError: no thread"
    loop.scheduler.check()


def test_a_closed_worker_has_computed_what_was_launched():
    runner = FakeRunner(BASE, {})
    launched = LaunchedInThread(runner)
    handle = launched.launch(StepPlan(0))
    launched.close()
    assert handle.result() == StepResult({})
