"""Histograms and the definitions of the latencies."""

from __future__ import annotations

import pytest

from weft.engine.stats import Histogram, RequestTimes, Timings


def test_value_on_a_bound_belongs_below_it():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 3.0):
        histogram.observe(value)
    snapshot = histogram.snapshot()
    assert snapshot.counts == (2, 2, 1)
    assert snapshot.num_observations == 5
    assert snapshot.mean == pytest.approx(1.6)


def test_latencies_of_one_request():
    timings, times = Timings(), RequestTimes(arrival_s=10.0)
    for now_s in (10.5, 11.0, 13.0):
        times.token(now_s, timings)
    times.end(13.5, timings)
    assert timings.time_to_first_token_s.snapshot().total == pytest.approx(0.5)
    assert timings.inter_token_latency_s.snapshot().total == pytest.approx(2.5)
    assert timings.inter_token_latency_s.snapshot().num_observations == 2
    assert timings.time_per_output_token_s.snapshot().mean == pytest.approx(1.25)
    assert timings.end_to_end_s.snapshot().total == pytest.approx(3.5)


def test_request_that_ends_without_a_token_has_only_an_end():
    timings = Timings()
    RequestTimes(arrival_s=1.0).end(4.0, timings)
    assert timings.end_to_end_s.snapshot().total == 3.0
    assert timings.time_to_first_token_s.snapshot().num_observations == 0
    assert timings.time_per_output_token_s.snapshot().num_observations == 0
