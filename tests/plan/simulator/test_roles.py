from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.plan.simulator.roles import BalanceRoles, Member, ScaleWithLoad
from weft.sched.routing import ReplicaLoad


def member(number: int, role: str, num_requests: int, *, switching: bool = False) -> Member:
    return Member(number, role, ReplicaLoad(num_requests), switching)  # type: ignore[arg-type]


def test_the_calmest_replica_of_the_calmer_pool_moves():
    members = [member(0, "prefill", 30), member(1, "decode", 3), member(2, "decode", 1)]
    assert BalanceRoles().decide(members) == {2: "prefill"}


@pytest.mark.parametrize(
    "members",
    [
        [member(0, "prefill", 30), member(1, "decode", 0)],  # the last of its pool stays
        [member(0, "prefill", 3), member(1, "decode", 0), member(2, "decode", 0)],  # too little
        [member(0, "prefill", 9), member(1, "decode", 8), member(2, "decode", 8)],  # even
        [member(0, "prefill", 30), member(1, "decode", 0), member(2, "decode", 0, switching=True)],
    ],
)
def test_nobody_moves_without_need(members):
    assert BalanceRoles().decide(members) == {}


def test_scaling_starts_one_when_busy_and_rests_one_when_idle():
    policy = ScaleWithLoad(high=10.0, low=2.0)
    assert policy.decide([member(0, "mixed", 11), member(1, "standby", 0)]) == {1: "mixed"}
    assert policy.decide([member(0, "mixed", 1), member(1, "mixed", 0)]) == {1: "standby"}
    assert policy.decide([member(0, "mixed", 0), member(1, "standby", 0)]) == {}
    assert policy.decide([member(1, "standby", 0)]) == {1: "mixed"}


def test_impossible_policies_are_refused():
    for make in (lambda: BalanceRoles(0.0), lambda: ScaleWithLoad(low=5.0, high=5.0)):
        with pytest.raises(ConfigError):
            make()
