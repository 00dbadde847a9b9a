from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.arrivals import fixed_content
from weft.plan.workload.source import ClosedLoop, OpenLoop

CONTENT = fixed_content(8, 2)


def test_an_open_loop_is_in_order_of_time_and_answers_change_nothing():
    source = OpenLoop((Arrival(2.0, 1, 1), Arrival(1.0, 1, 1))).source()
    assert [arrival.time_s for arrival in source.first()] == [1.0, 2.0]
    assert source.after(5.0) is None


def test_a_client_asks_again_after_thinking_until_all_requests_are_sent():
    source = ClosedLoop(CONTENT, num_clients=2, num_requests=3, think_s=0.5).source()
    assert len(list(source.first())) == 2
    following = source.after(4.0)
    assert following is not None
    assert following.time_s == 4.5
    assert source.after(5.0) is None


def test_clients_start_one_after_the_other_when_ramped():
    source = ClosedLoop(CONTENT, num_clients=4, num_requests=9, ramp_s=2.0).source()
    assert [arrival.time_s for arrival in source.first()] == [0.0, 0.5, 1.0, 1.5]


def test_each_source_of_a_loop_is_fresh():
    loop = ClosedLoop(CONTENT, num_clients=1, num_requests=2)
    for _ in range(2):
        source = loop.source()
        assert source.after(1.0) is not None
        assert source.after(2.0) is None


def test_a_loop_without_clients_is_refused():
    with pytest.raises(ConfigError, match="0 clients"):
        ClosedLoop(CONTENT, num_clients=0, num_requests=1)
