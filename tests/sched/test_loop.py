from __future__ import annotations

import time

import pytest

from tests.sched.fake_runner import FakeRunner
from weft.core.errors import RequestError
from weft.sched.config import SchedulerConfig
from weft.sched.loop import MonotonicClock, ServingLoop, VirtualClock
from weft.sched.scheduler import Scheduler
from weft.spec.request import FinishReason, Request
from weft.spec.sampling import SamplingParams

CONFIG = SchedulerConfig(num_blocks=16, max_context=32, block_size=2, max_num_sequences=4)


def make_loop(*requests: Request) -> tuple[ServingLoop, FakeRunner, VirtualClock]:
    runner = FakeRunner(CONFIG, {request.id: request for request in requests})
    clock = VirtualClock()
    loop = ServingLoop(Scheduler(CONFIG), runner, clock)
    for request in requests:
        loop.submit(request)
    return loop, runner, clock


def request(id_: str = "a", **changes) -> Request:
    sampling = SamplingParams(max_tokens=3, seed=1)
    return Request(**{"id": id_, "tokens": (1, 2, 3), "sampling": sampling, **changes})


def test_steps_until_the_end_and_then_the_runner_forgets():
    loop, runner, _ = make_loop(request())
    updates = [update for _ in range(3) for update in loop.step()]
    assert [update.finish_reason for update in updates] == [None, None, FinishReason.LENGTH]
    assert loop.has_work, "the runner still remembers the sequence"
    assert loop.step() == []
    assert not runner.sequences
    assert not loop.has_work


def test_a_failing_runner_ends_the_requests_of_its_step_and_the_loop_lives():
    loop, runner, _ = make_loop(request())

    def fail(plan):
        raise RuntimeError("out of memory")

    runner.during_step = fail
    (update,) = loop.step()
    assert update.finish_reason is FinishReason.ERROR
    assert update.error == "RuntimeError: out of memory"
    assert isinstance(loop.failure, RuntimeError)
    runner.during_step = lambda plan: None
    second = request("b")
    runner.requests["b"] = second
    loop.submit(second)
    assert loop.step()[0].token is not None
    assert loop.failure is None
    loop.scheduler.check()


def test_an_interrupt_passes_through_and_locks_no_block():
    loop, runner, _ = make_loop(request())

    def interrupt(plan):
        raise KeyboardInterrupt

    runner.during_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        loop.step()
    assert loop.scheduler.stats().num_used_blocks == 0
    loop.scheduler.check()


def test_a_deadline_that_passes_while_waiting_is_reported_without_running_anything():
    loop, runner, clock = make_loop(request(deadline_s=5.0))
    clock.advance(6.0)
    (update,) = loop.step()
    assert update.finish_reason is FinishReason.TIMEOUT
    assert runner.plans == []
    assert not loop.has_work


def test_aborting_twice_ends_once():
    loop, _, _ = make_loop(request())
    update = loop.abort("a")
    assert update is not None
    assert update.finish_reason is FinishReason.ABORT
    assert loop.abort("a") is None
    assert loop.abort("never seen") is None


def test_a_virtual_clock_moves_only_when_told():
    clock = VirtualClock(2.0)
    clock.advance(1.5)
    clock.sleep_until(3.0)
    assert clock.now() == 3.5
    clock.sleep_until(10.0)
    assert clock.now() == 10.0


def test_the_monotonic_clock_sleeps_at_least_until_the_time():
    clock = MonotonicClock()
    target = clock.now() + 0.01
    clock.sleep_until(target)
    assert clock.now() >= target
    clock.sleep_until(target - 100.0)
    assert clock.now() < time.monotonic() + 1.0


def test_requests_are_queued_all_or_none():
    loop, runner, _ = make_loop(request("a"))
    runner.requests["b"] = request("b")
    with pytest.raises(RequestError, match="'a' is in use"):
        loop.submit_all([request("b"), request("a")])
    assert loop.scheduler.num_waiting == 1
    loop.submit_all([request("b")])
    assert len(loop.step()) == 2
