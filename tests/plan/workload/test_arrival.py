from __future__ import annotations

import math

import pytest

from weft.core.errors import ConfigError
from weft.plan.workload.arrival import Arrival, TraceArrival


def test_a_group_shares_its_beginning_and_nothing_else():
    first, second = (
        Arrival(0.0, 6, 1, 4, group=3).prompt(0),
        Arrival(0.0, 6, 1, 4, group=3).prompt(1),
    )
    assert first[:4] == second[:4]
    assert not set(first[4:]) & set(second[4:])
    assert not set(first) & set(Arrival(0.0, 6, 1, 4, group=4).prompt(2))


def test_a_trace_shares_what_has_equal_names():
    first = TraceArrival(0.0, 10, 1, block_hashes=(7, 8, 9), hash_block_size=4).prompt(0)
    second = TraceArrival(0.0, 12, 1, block_hashes=(7, 8, 5), hash_block_size=4).prompt(1)
    assert len(first) == 10
    assert first[:8] == second[:8]
    assert not set(first[8:]) & set(second[8:])


def test_a_prompt_longer_than_its_names_goes_on_with_its_own_tokens():
    tokens = TraceArrival(0.0, 6, 1, block_hashes=(1,), hash_block_size=4).prompt(2)
    assert len(set(tokens)) == 6
    assert tokens[4:] == Arrival(0.0, 6, 1).prompt(2)[4:]


def test_a_request_carries_its_time_and_its_limit():
    request = Arrival(2.5, 3, 9).request(4)
    assert (request.id, request.arrival_s, request.sampling.max_tokens) == ("4", 2.5, 9)


@pytest.mark.parametrize(
    "make",
    [lambda: Arrival(0.0, 0, 1), lambda: Arrival(0.0, 2, 1, 3), lambda: Arrival(math.nan, 1, 1)],
)
def test_impossible_requests_are_refused(make):
    with pytest.raises(ConfigError):
        make()
