"""A real engine's schedule, run again on the planner's virtual clock."""

from __future__ import annotations

from tests.engine import support
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.plan.simulator.replay import RecordingScheduler, replay, schedule_trace
from weft.sched.loop import MonotonicClock
from weft.sched.scheduler import Scheduler
from weft.spec import Request, SamplingParams


def recording_core() -> tuple[EngineCore, RecordingScheduler]:
    config = EngineConfig(
        num_blocks=40, block_size=4, max_num_sequences=6, max_tokens_per_step=16, seed=3
    )
    core = EngineCore(support.model(), support.tokenizer(), config, clock=MonotonicClock())
    scheduler = RecordingScheduler(core.scheduler.config, eos_ids=core.eos_ids)
    core.scheduler = core.loop.scheduler = scheduler
    return core, scheduler


def test_an_engine_run_replays_to_the_same_schedule():
    core, scheduler = recording_core()
    sampling = [
        SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True),
        SamplingParams(temperature=1.0, max_tokens=20, stop=("e",)),
        SamplingParams(temperature=1.0, max_tokens=25, seed=5),
    ]
    prompts = support.make_prompts(12)
    for index, prompt in enumerate(prompts):
        core.submit(Request(str(index), tuple(prompt), sampling[index % 3]))
        core.step()
        if index == 7:
            core.abort("6")
    core.bump_weight_version()
    while core.has_work:
        core.step()
    assert scheduler.stats().counters.num_preemptions > 0
    trace = replay(scheduler.journal, Scheduler(scheduler.config, eos_ids=core.eos_ids))
    assert trace == schedule_trace(scheduler.journal)
    assert sum(len(step.items) for step in trace) > 100
