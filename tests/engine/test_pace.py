"""Chunks that keep an output's pace: prices measured through the runner, and used."""

from __future__ import annotations

import pytest

from tests.engine.support import make_prompts, model
from weft.core.errors import ConfigError
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.engine.pace import fit_step_time, measure_step_time
from weft.sched.budget import StepTime
from weft.sched.loop import VirtualClock
from weft.sched.plan import StepPlan, StepResult
from weft.spec.sampling import SamplingParams

TRUE = StepTime(0.004, 2e-5, 3e-7)
SIZES = {"num_blocks": 64, "block_size": 16, "max_context": 700}


class PricedRunner:
    """Takes what ``TRUE`` says."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.known: set[int] = set()

    def execute(self, plan: StepPlan) -> StepResult:
        self.known |= {new.id for new in plan.new}
        assert {item.id for item in plan.items} <= self.known
        for item in plan.items:
            assert len(item.blocks) * SIZES["block_size"] >= item.start + len(item.tokens)
            assert max(item.blocks) < SIZES["num_blocks"]
            assert item.start + len(item.tokens) <= SIZES["max_context"]
        context = sum(item.start + len(item.tokens) for item in plan.items)
        self.clock.advance(TRUE.step_s(plan.num_tokens, context))
        return StepResult({})

    def forget(self, ids: tuple[int, ...]) -> None:
        self.known -= set(ids)


def test_measured_prices_are_those_of_the_runner():
    clock = VirtualClock()
    runner = PricedRunner(clock)
    found = measure_step_time(runner, clock, **SIZES, max_tokens=2048, max_sequences=256)
    assert found.base_s == pytest.approx(TRUE.base_s, rel=1e-6)
    assert found.per_token_s == pytest.approx(TRUE.per_token_s, rel=1e-6)
    assert found.per_context_token_s == pytest.approx(TRUE.per_context_token_s, rel=1e-6)
    assert not runner.known, "nothing is left in the runner"


def test_the_smallest_engine_can_be_measured():
    clock = VirtualClock()
    sizes = {"num_blocks": 1, "block_size": 2, "max_context": 2}
    found = measure_step_time(PricedRunner(clock), clock, **sizes, max_tokens=1, max_sequences=1)
    assert found.base_s > 0.0


def test_times_that_fall_with_size_give_no_negative_price():
    found = fit_step_time({(1, 1, 0): 2.0, (1, 64, 0): 1.9, (1, 512, 0): 1.8})
    assert found.base_s > 0.0
    assert found.per_token_s == found.per_context_token_s == 0.0


def test_a_target_makes_chunks_smaller_and_changes_no_token():
    prompts = make_prompts(4)
    params = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    plain = LLM(model(), config=EngineConfig(num_blocks=64, block_size=4))
    # Of every step 2 s are left beside its outputs: two tokens.
    paced = LLM(
        model(),
        config=EngineConfig(
            num_blocks=64, block_size=4, tpot_target_s=10.0, step_time=StepTime(7.5, 1.0)
        ),
    )
    assert [c.tokens for c in paced.generate(prompts, params)] == [
        c.tokens for c in plain.generate(prompts, params)
    ]


def test_without_prices_the_engine_measures_its_own():
    config = EngineConfig(num_blocks=64, block_size=4, tpot_target_s=0.05)
    core = LLM(model(), config=config).core
    assert core.scheduler.config.step_time is not None
    assert core.scheduler.config.step_time.base_s > 0.0
    assert len(core.runner.table) == 0


def test_a_target_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="tpot_target_s"):
        EngineConfig(tpot_target_s=0.0)
