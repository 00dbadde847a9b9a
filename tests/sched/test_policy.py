"""Who is admitted next, one policy after the other, and that each comes to everybody."""

from __future__ import annotations

import pytest

from tests.sched.test_scheduler import make, step, submit
from weft.core.errors import ConfigError
from weft.sched.scheduler import Scheduler


def admissions(scheduler: Scheduler, num_steps: int, *, token: int = 9) -> list[str]:
    return [new.request_id for _ in range(num_steps) for new in step(scheduler, token=token)[0].new]


def one_place(policy: str, **changes) -> Scheduler:
    return make(policy=policy, max_num_sequences=1, max_tokens_per_step=64, **changes)


def test_first_come_is_first_served_whatever_the_priorities():
    scheduler = one_place("fcfs")
    for id_, priority in (("a", 2), ("b", 0), ("c", 1)):
        submit(scheduler, id_, 2, priority=priority, sampling={"max_tokens": 1})
    assert admissions(scheduler, 3) == ["a", "b", "c"]


def test_first_come_is_preempted_last_whatever_the_priorities():
    scheduler = make(policy="fcfs", num_blocks=3, block_size=10, max_tokens_per_step=64)
    submit(scheduler, "a", 9, priority=5)
    submit(scheduler, "b", 10)
    step(scheduler)
    step(scheduler)
    assert step(scheduler)[0].preempted == (1,)


def test_the_longest_cached_prefix_goes_first():
    scheduler = one_place("longest_prefix")
    once = {"max_tokens": 1}
    submit(scheduler, "warm", 0, tokens=tuple(range(12)), sampling=once)
    step(scheduler)
    for id_, shared in (("none", 0), ("some", 4), ("all", 12), ("some more", 8)):
        submit(scheduler, id_, 0, tokens=(*range(shared), *range(90, 95)), sampling=once)
    assert admissions(scheduler, 4) == ["all", "some more", "some", "none"]


def test_the_fewest_tokens_to_draw_go_first():
    scheduler = one_place("shortest_remaining")
    for id_, num_tokens, num_prompt in (("a", 3, 2), ("b", 1, 9), ("c", 1, 2), ("d", 2, 2)):
        submit(scheduler, id_, num_prompt, sampling={"max_tokens": num_tokens})
    assert admissions(scheduler, 7) == ["c", "b", "d", "a"]


@pytest.mark.parametrize("policy", ["longest_prefix", "shortest_remaining"])
def test_whoever_came_first_is_overtaken_only_so_often(policy):
    scheduler = one_place(policy, max_overtakes=3)
    once = {"max_tokens": 1}
    submit(scheduler, "warm", 0, tokens=tuple(range(12)), sampling=once)
    step(scheduler)
    submit(scheduler, "long", 20, sampling={"max_tokens": 2})
    order = []
    for index in range(6):
        prompt = (*range(12), index)
        submit(scheduler, f"{index}", 0, tokens=prompt, sampling=once)
        order += admissions(scheduler, 1)
    assert order == ["0", "1", "2", "long", "3"]


def test_a_tenant_that_got_much_is_overtaken_only_so_often():
    scheduler = one_place("fair_share", max_overtakes=3)
    for id_, num_tokens, tenant in (("g1", 20, "greedy"), ("g2", 20, "greedy")):
        submit(scheduler, id_, num_tokens, sampling={"max_tokens": 1}, tenant=tenant)
    for index in range(6):
        submit(scheduler, f"c{index}", 2, sampling={"max_tokens": 1}, tenant="cheap")
    assert admissions(scheduler, 6) == ["g1", "c0", "c1", "c2", "g2", "c3"]


def test_tenants_share_by_what_they_got_not_by_what_they_ask_for():
    scheduler = one_place("fair_share", max_overtakes=1000)
    for index in range(6):
        submit(scheduler, f"big{index}", 10, sampling={"max_tokens": 1}, tenant="big")
    for index in range(6):
        submit(scheduler, f"small{index}", 4, sampling={"max_tokens": 1}, tenant="small")
    # A big one costs 10 + 2, a small one 4 + 2.
    assert [id_[:-1] for id_ in admissions(scheduler, 9)] == [
        *("big", "small", "small", "big", "small", "small", "big", "small", "small"),
    ]


def test_output_tokens_cost_twice_as_much_as_input_tokens():
    scheduler = one_place("fair_share")
    submit(scheduler, "x1", 4, sampling={"max_tokens": 3}, tenant="x")
    submit(scheduler, "y1", 9, sampling={"max_tokens": 1}, tenant="y")
    submit(scheduler, "x2", 4, sampling={"max_tokens": 1}, tenant="x")
    submit(scheduler, "y2", 4, sampling={"max_tokens": 1}, tenant="y")
    # x: 4 + 2 * 3 = 10, y: 9 + 2 * 1 = 11
    assert admissions(scheduler, 6) == ["x1", "y1", "x2", "y2"]


def test_a_tenant_saves_nothing_up_while_it_is_away():
    scheduler = one_place("fair_share")
    for index in range(5):
        submit(scheduler, f"busy{index}", 8, sampling={"max_tokens": 1}, tenant="busy")
    step(scheduler)
    step(scheduler)
    for index in range(3):
        submit(scheduler, f"new{index}", 8, sampling={"max_tokens": 1}, tenant="new")
    assert [id_[:-1] for id_ in admissions(scheduler, 6)] == ["busy", "new"] * 3


def test_a_tenant_alone_after_another_starts_where_that_one_stopped():
    scheduler = one_place("fair_share")
    submit(scheduler, "a", 8, sampling={"max_tokens": 1}, tenant="one")
    step(scheduler)
    submit(scheduler, "b", 8, sampling={"max_tokens": 1}, tenant="two")
    submit(scheduler, "c", 8, sampling={"max_tokens": 1}, tenant="one")
    assert admissions(scheduler, 2) == ["b", "c"]


def test_a_prompt_computed_again_is_charged_once():
    scheduler = make(policy="fair_share", max_tokens_per_step=64)
    submit(scheduler, "a", 8, tenant="x")
    step(scheduler)
    scheduler.retract()
    step(scheduler)
    submit(scheduler, "y", 9, tenant="y", sampling={"max_tokens": 1})
    assert scheduler._roster.policy.served["x"] == 8 + 2 * 2


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="there is no policy 'best'"):
        make(policy="best")
