from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.sched.routing import (
    LeastKV,
    LeastRequests,
    PrefixAware,
    ReplicaLoad,
    RoundRobin,
)
from weft.spec import Request


def request(*tokens: int, salt: str = "") -> Request:
    return Request("r", tuple(tokens), cache_salt=salt)


def loads(*num_requests: int) -> dict[int, ReplicaLoad]:
    return {replica: ReplicaLoad(num) for replica, num in enumerate(num_requests)}


def test_round_robin_takes_each_in_turn_and_skips_the_missing():
    policy = RoundRobin()
    assert [policy.choose(request(1), loads(9, 0, 0)) for _ in range(4)] == [0, 1, 2, 0]
    assert policy.choose(request(1), {0: ReplicaLoad(0), 2: ReplicaLoad(0)}) == 2


def test_least_requests_takes_the_shortest_queue():
    assert LeastRequests().choose(request(1), loads(3, 1, 1)) == 1


def test_least_kv_looks_at_the_cache_before_the_queue():
    state = {0: ReplicaLoad(1, 0.9), 1: ReplicaLoad(5, 0.2), 2: ReplicaLoad(4, 0.2)}
    assert LeastKV().choose(request(1), state) == 2


def test_prefix_aware_goes_where_the_beginning_is():
    policy = PrefixAware(block_size=2)
    first = policy.choose(request(1, 2, 3, 4), loads(0, 0))
    assert first == 0
    assert policy.choose(request(9, 9, 9, 9), loads(1, 0)) == 1
    assert policy.choose(request(1, 2, 7, 7), loads(2, 0)) == 0
    assert policy.choose(request(9, 9, 1, 1), loads(0, 2)) == 1


def test_prefix_aware_gives_up_a_match_for_an_overloaded_replica():
    policy = PrefixAware(block_size=2, max_ratio=1.5, max_excess=4)
    policy.choose(request(1, 2, 3), loads(0, 0))
    assert policy.choose(request(1, 2, 3), loads(4, 0)) == 0
    assert policy.choose(request(1, 2, 3), loads(5, 0)) == 1


def test_tenants_do_not_match_each_other():
    policy = PrefixAware(block_size=2)
    policy.choose(request(1, 2, salt="a"), loads(0, 0))
    assert policy.choose(request(1, 2, salt="b"), loads(1, 0)) == 1


def test_a_replica_that_lost_its_cache_is_forgotten():
    policy = PrefixAware(block_size=2)
    policy.choose(request(1, 2), loads(0, 0))
    policy.forget(0)
    assert policy.choose(request(1, 2), loads(1, 0)) == 1


def test_ends_of_prompts_are_forgotten_before_their_beginnings():
    policy = PrefixAware(block_size=1, num_blocks=2)
    policy.choose(request(1, 2, 3), loads(0, 5))
    assert policy.choose(request(1, 2, 9), loads(1, 0)) == 0


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="max_ratio 0"):
        PrefixAware(max_ratio=0.5)
