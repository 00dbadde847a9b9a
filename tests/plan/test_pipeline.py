from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.plan.pipeline import (
    bubble_ratio,
    bubble_share,
    dual_pipe_seconds,
    even_stages,
    timeline,
    zero_bubble_seconds,
)
from weft.sched.pipeline import Action, PipelineSchedule, build


def equal(stage, kind):
    return {"F": 1.0, "B": 1.0, "W": 1.0, "BW": 2.0}[kind]


@given(st.integers(1, 12), st.integers(1, 24), st.sampled_from(["gpipe", "1f1b"]))
@settings(deadline=None)
def test_even_stages_have_the_bubble_of_the_closed_form(num_ranks, num_micro, name):
    line = timeline(build(name, num_ranks, num_micro), equal)
    assert line.bubble_share == pytest.approx(bubble_share(num_ranks, num_micro))
    assert line.bubble_s / (3 * num_micro) == pytest.approx(bubble_ratio(num_ranks, num_micro))


@given(st.integers(2, 6), st.integers(1, 4), st.integers(2, 4))
@settings(deadline=None, max_examples=40)
def test_interleaving_divides_the_bubble(num_ranks, groups, num_chunks):
    num_micro = num_ranks * groups
    line = timeline(build("interleaved", num_ranks, num_micro, num_chunks=num_chunks), equal)
    assert line.bubble_share == pytest.approx(bubble_share(num_ranks, num_micro, num_chunks))


def test_values_of_four_ranks_and_thirty_two_micro_batches():
    assert bubble_share(4, 32) == pytest.approx(0.0857, abs=5e-5)
    assert bubble_ratio(4, 32) == pytest.approx(0.09375)
    assert bubble_ratio(4, 32, 2) == pytest.approx(0.0469, abs=5e-5)
    assert bubble_share(4, 32, 2) == pytest.approx(0.0448, abs=5e-5)


@pytest.mark.parametrize(("num_ranks", "num_micro"), [(4, 16), (8, 32), (3, 7)])
def test_split_backward_passes_fill_the_bubble(num_ranks, num_micro):
    line = timeline(build("zb-h1", num_ranks, num_micro), equal)
    assert line.bubble_s == pytest.approx(zero_bubble_seconds(num_ranks, 1.0, 2.0, 1.0))
    assert line.bubble_s < timeline(build("1f1b", num_ranks, num_micro), equal).bubble_s


@pytest.mark.parametrize(("num_ranks", "num_micro"), [(4, 8), (8, 32), (16, 64)])
def test_entering_at_both_ends_is_within_the_closed_form(num_ranks, num_micro):
    line = timeline(build("dualpipe", num_ranks, num_micro), equal)
    assert line.bubble_s <= dual_pipe_seconds(num_ranks, 3.0, 2.0, 1.0)
    assert line.bubble_s < timeline(build("zb-h1", num_ranks, num_micro), equal).bubble_s


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "interleaved", "zb-h1", "dualpipe"])
def test_every_micro_batch_passes_every_stage_once_each_way(name):
    schedule = build(name, 4, 8, num_chunks=2 if name == "interleaved" else 1)
    actions = [action for rank in schedule.ranks for action in rank]
    forward = {(a.stage, a.micro) for a in actions if a.kind == "F"}
    inputs = [(a.stage, a.micro) for a in actions if a.kind in ("B", "BW")]
    weights = [(a.stage, a.micro) for a in actions if a.kind in ("W", "BW")]
    assert len(forward) == schedule.num_stages * 8 == len(inputs) == len(weights)
    assert set(inputs) == set(weights) == forward


@given(st.integers(1, 8), st.integers(1, 16))
def test_one_forward_one_backward_holds_as_many_as_ranks_follow(num_ranks, num_micro):
    schedule = build("1f1b", num_ranks, num_micro)
    for rank in range(num_ranks):
        assert schedule.in_flight(rank) == min(num_micro, num_ranks - rank)


def test_gpipe_holds_everything_and_split_passes_no_more_than_the_ranks():
    assert build("gpipe", 4, 16).in_flight(0) == 16
    assert max(build("zb-h1", 8, 32).in_flight(rank) for rank in range(8)) == 8


def test_the_slowest_stage_sets_the_pace():
    def uneven(stage, kind):
        return (2.0 if stage == 3 else 1.0) * equal(stage, kind)

    line = timeline(build("1f1b", 4, 32), uneven)
    # The last rank works 32 x 6 and waits for three forward and three backward passes.
    assert line.step_s == pytest.approx(32 * 6 + 3 * 1 + 3 * 2)


def test_messages_lengthen_the_step():
    schedule = build("1f1b", 4, 8)
    assert timeline(schedule, equal, send_s=0.1).step_s > timeline(schedule, equal).step_s


def test_a_schedule_that_waits_for_itself_is_refused():
    stuck = PipelineSchedule("stuck", 2, 1, ((Action(0, 0, "BW"),), (Action(1, 0, "F"),)))
    with pytest.raises(ConfigError, match="never ends"):
        timeline(stuck, equal)


def test_impossible_schedules_are_refused():
    with pytest.raises(ConfigError, match="1f2b"):
        build("1f2b", 4, 8)
    with pytest.raises(ConfigError, match="do not divide"):
        build("interleaved", 4, 6, num_chunks=2)
    with pytest.raises(ConfigError, match="twice as many"):
        build("dualpipe", 4, 4)
    with pytest.raises(ConfigError, match="one stage per rank"):
        build("1f1b", 4, 8, num_chunks=2)
    with pytest.raises(ConfigError, match="at least one"):
        build("gpipe", 0, 8)


@given(st.integers(1, 200), st.integers(1, 64))
def test_stages_take_all_layers_and_differ_by_one(num_layers, num_stages):
    stages = even_stages(num_layers, num_stages)
    assert sum(stages) == num_layers
    assert max(stages) - min(stages) <= 1
