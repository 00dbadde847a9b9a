from __future__ import annotations

import itertools
import random

import pytest

from weft.core.errors import ConfigError
from weft.plan.simulator.replay import (
    RecordingScheduler,
    Stepped,
    fit_step_time,
    replay,
    schedule_trace,
)
from weft.plan.simulator.runner import LinearStepTime, SimRunner
from weft.plan.workload.arrival import Arrival
from weft.sched.config import SchedulerConfig
from weft.sched.loop import ServingLoop, VirtualClock
from weft.sched.scheduler import Scheduler
from weft.spec.request import FinishReason

CONFIG = SchedulerConfig(
    num_blocks=40, max_context=200, max_num_sequences=6, max_tokens_per_step=48, block_size=8
)


def recorded(seed: int = 0, *, noise: float = 0.0, depth: int = 0) -> RecordingScheduler:
    """Serve a crowd that preempts, aborts and changes weights, and keep the journal."""
    rng, scheduler, clock = random.Random(seed), RecordingScheduler(CONFIG), VirtualClock(100.0)
    true = LinearStepTime(0.01, 1e-4, 1e-6)
    runner = SimRunner(clock, lambda plan: true(plan) * (1 + noise * rng.uniform(-1, 1)))
    loop = ServingLoop(scheduler, runner, clock, depth=depth)
    for index in range(30):
        shared = rng.choice([0, 16])
        prompt = rng.randint(shared + 1, 100)
        arrival = Arrival(clock.now(), prompt, rng.randint(1, 40), shared)
        loop.submit(arrival.request(index))
        if index == 10:
            loop.abort("8", FinishReason.ABORT)
        if index == 20:
            loop.drain()
            scheduler.set_weight_version(1)
            scheduler.retract()
        for _ in range(rng.randint(0, 3)):
            loop.step()
        clock.advance(rng.random() * 1e-3)
    while loop.has_work:
        loop.step()
    return scheduler


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_a_replayed_journal_gives_the_same_schedule_block_for_block(seed, depth):
    scheduler = recorded(seed, depth=depth)
    assert scheduler.stats().counters.num_preemptions > 0
    trace = replay(scheduler.journal, Scheduler(CONFIG))
    assert trace == schedule_trace(scheduler.journal)
    assert len(trace) > 50


def test_another_configuration_gives_another_schedule():
    scheduler = recorded()
    other = SchedulerConfig(
        num_blocks=39, max_context=200, max_num_sequences=6, max_tokens_per_step=48, block_size=8
    )
    assert replay(scheduler.journal, Scheduler(other)) != schedule_trace(scheduler.journal)


def test_step_times_are_learned_from_a_journal():
    fitted = fit_step_time(recorded(noise=0.05).journal)
    assert fitted.base_s == pytest.approx(0.01, rel=0.1)
    assert fitted.per_token_s == pytest.approx(1e-4, rel=0.2)


def test_a_journal_without_steps_teaches_nothing():
    with pytest.raises(ConfigError, match="0 steps"):
        fit_step_time([])


def test_the_journal_carries_times_and_results():
    steps = [entry for entry in recorded().journal if isinstance(entry, Stepped)]
    assert steps[0].start_s >= 100.0
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(steps))
    assert any(step.result.tokens for step in steps)
