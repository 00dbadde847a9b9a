from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.plan.simulator.fleet import Failure, Fleet, Pool, Transfer
from weft.plan.simulator.runner import LinearStepTime
from weft.sched.config import SchedulerConfig
from weft.sched.plan import StepItem, StepPlan

CONFIG = SchedulerConfig(num_blocks=64, max_context=256)
STEP = LinearStepTime(0.01)
MIXED, PREFILL, DECODE = (Pool(STEP, CONFIG, 1, role) for role in ("mixed", "prefill", "decode"))
LINK = Transfer(bytes_per_token=1e3, bandwidth=1e6)


def test_transfer_takes_its_start_and_what_was_not_hidden():
    transfer = Transfer(1000.0, 1e6, start_s=0.5, hidden_share=0.75)
    assert transfer.seconds(4000) == pytest.approx(0.5 + 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fleet(()),
        lambda: Fleet((Pool(STEP, CONFIG, 2, "standby"),)),
        lambda: Fleet((PREFILL,), transfer=LINK),
        lambda: Fleet((PREFILL, DECODE)),
        lambda: Fleet((MIXED, PREFILL, DECODE), transfer=LINK),
        lambda: Fleet((MIXED,), failures=(Failure(1.0, 1),)),
        lambda: Pool(STEP, CONFIG, 0),
        lambda: Pool(
            STEP,
            SchedulerConfig(num_blocks=8, max_context=9, enable_prefix_cache=False),
            1,
            "decode",
        ),
        lambda: Transfer(1.0, 0.0),
        lambda: Transfer(1.0, 1.0, hidden_share=2.0),
    ],
)
def test_impossible_fleets_are_refused_with_a_fix(make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.fix


def test_a_slower_fleet_takes_so_many_times_as_long() -> None:
    pool = Pool(LinearStepTime(0.5, 0.1), SchedulerConfig(num_blocks=8, max_context=64))
    slower = Fleet((pool,)).slower(3.0).pools[0]
    plan = StepPlan(0, (StepItem(0, (1, 2), 0, (0,), sample=True),))
    assert slower.step_time(plan) == pytest.approx(3.0 * 0.7)
    assert slower.scheduler == pool.scheduler
