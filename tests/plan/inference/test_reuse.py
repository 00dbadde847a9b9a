from __future__ import annotations

import pytest

from tests.plan.inference.support import FP8, make_model
from weft.core.errors import ConfigError
from weft.plan.inference.load import Traffic
from weft.plan.inference.reuse import fetch_crossover, fetch_or_compute, prefix_gain


def test_a_hit_saves_prefill_and_raises_throughput():
    model = make_model("Llama-3.1-70B", "H200", 2, storage=FP8)
    gain = prefix_gain(model, Traffic(8000, 200, num_cached_tokens=7000))
    assert 4.0 < gain.prefill_speed_up < 9.0
    assert gain.throughput_gain > 2.0
    assert gain.saved_s > 0.0


def test_nothing_cached_gains_nothing():
    gain = prefix_gain(make_model(), Traffic(1000, 100))
    assert (gain.prefill_speed_up, gain.throughput_gain, gain.saved_s) == (1.0, 1.0, 0.0)


def test_a_fast_link_beats_computing_and_a_slow_one_does_not():
    model = make_model("Llama-3.1-8B")
    fast, slow = (fetch_or_compute(model, 4000, bandwidth=rate) for rate in (50e9, 0.1e9))
    assert fast.fetch_pays
    assert not slow.fetch_pays
    for choice in (fast, slow):  # both at once beat either alone
        assert choice.layerwise_s < min(choice.fetch_s, choice.compute_s)


def test_crossover_is_where_the_answer_flips():
    model = make_model("Llama-3.1-8B", "H100")
    tokens = fetch_crossover(model, bandwidth=2.2e9)
    assert tokens is not None
    assert 100 < tokens < 200_000
    assert fetch_or_compute(model, tokens, bandwidth=2.2e9).fetch_pays
    assert not fetch_or_compute(model, tokens - 1, bandwidth=2.2e9).fetch_pays


def test_slower_links_need_longer_prefixes_and_hopeless_ones_have_none():
    model = make_model("Llama-3.1-8B", "H100")
    lengths = [fetch_crossover(model, bandwidth=rate) or 0 for rate in (10e9, 2.4e9, 1.6e9)]
    assert lengths == sorted(lengths)
    assert fetch_crossover(model, bandwidth=1e6, most_tokens=10_000) is None


def test_impossible_fetches_are_refused():
    with pytest.raises(ConfigError):
        fetch_or_compute(make_model(), 100, bandwidth=0.0)
