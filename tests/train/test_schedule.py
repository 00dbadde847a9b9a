from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.train.loop_config import LoopConfig
from weft.train.schedule import ScheduleConfig

KINDS = ("wsd", "cosine", "linear", "constant")


def test_wsd_is_flat_then_falls_in_a_line() -> None:
    schedule = ScheduleConfig(kind="wsd", warmup_steps=4, decay_fraction=0.5)
    factors = [schedule.factor(step, 20) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4:11] == [1.0] * 7
    assert factors[11:] == pytest.approx([1 - i / 10 for i in range(1, 10)])


def test_cosine_is_half_a_wave_above_its_floor() -> None:
    schedule = ScheduleConfig(kind="cosine", warmup_steps=0, final_lr_fraction=0.1)
    for step in range(11):
        wanted = 0.1 + 0.9 * (1 + math.cos(math.pi * step / 10)) / 2
        assert schedule.factor(step, 10) == pytest.approx(wanted)


def test_linear_and_constant() -> None:
    linear = ScheduleConfig(kind="linear", warmup_steps=0, final_lr_fraction=0.2)
    assert [linear.factor(step, 4) for step in range(5)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    constant = ScheduleConfig(kind="constant", warmup_steps=2)
    assert [constant.factor(step, 4) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


@given(
    kind=st.sampled_from(KINDS),
    warmup=st.integers(0, 50),
    decay=st.floats(0, 1),
    final=st.floats(0, 1),
    step=st.integers(0, 200),
    progress=st.floats(-0.5, 1.5),
)
def test_factor_stays_between_zero_and_one(kind, warmup, decay, final, step, progress) -> None:
    schedule = ScheduleConfig(kind, warmup, decay, final)
    assert 0.0 <= schedule.factor_at(step, progress) <= 1.0


@given(st.sampled_from(KINDS), st.lists(st.floats(0, 1), min_size=2))
def test_after_the_warm_up_the_rate_never_rises(kind: str, progress: list[float]) -> None:
    schedule = ScheduleConfig(kind, warmup_steps=3)  # type: ignore[arg-type]
    factors = [schedule.factor_at(100, p) for p in sorted(progress)]
    assert factors == sorted(factors, reverse=True)


def test_a_time_budget_decays_like_a_step_budget() -> None:
    by_time, by_steps = LoopConfig(minutes=2.0).budget, LoopConfig(steps=50).budget
    assert by_time.progress(steps_done=999, elapsed_s=60.0) == 0.5
    assert by_steps.progress(steps_done=25, elapsed_s=1e9) == 0.5
    both = LoopConfig(minutes=2.0, steps=50).budget
    assert both.progress(steps_done=10, elapsed_s=90.0) == 0.75
    assert both.progress(steps_done=50, elapsed_s=1.0) == 1.0


def test_a_run_needs_an_end() -> None:
    with pytest.raises(ConfigError, match="no end") as caught:
        _ = LoopConfig().budget
    assert "minutes" in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"minutes": -1.0}, "minutes"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"tokens_per_step": 1000}, "sequence_length"),
        ({"micro_batch_tokens": 768, "tokens_per_step": 1024}, "tokens_per_step"),
    ],
)
def test_settings_that_do_not_fit_are_named(bad: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        LoopConfig(**bad)


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_steps"):
        ScheduleConfig(warmup_steps=-1)
    with pytest.raises(ConfigError, match="decay_fraction"):
        ScheduleConfig(decay_fraction=1.5)
