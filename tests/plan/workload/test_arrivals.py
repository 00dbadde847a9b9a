from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from weft.core.errors import ConfigError
from weft.plan.workload.arrivals import (
    Content,
    fixed_content,
    gamma_arrivals,
    poisson_arrivals,
    simultaneous_arrivals,
)
from weft.plan.workload.lengths import FixedLength, UniformLength

CONTENT = fixed_content(10, 2)


def gaps(arrivals) -> np.ndarray:
    return np.diff([0.0, *(arrival.time_s for arrival in arrivals)])


def test_poisson_gaps_have_the_mean_and_spread_of_an_exponential():
    drawn = gaps(poisson_arrivals(CONTENT, num_requests=20_000, rate_per_s=4.0))
    assert drawn.mean() == pytest.approx(0.25, rel=0.03)
    assert drawn.std() == pytest.approx(0.25, rel=0.03)


@pytest.mark.parametrize("variation", [0.3, 2.0])
def test_gamma_gaps_have_the_variation_asked_for(variation):
    arrivals = gamma_arrivals(CONTENT, num_requests=40_000, rate_per_s=4.0, variation=variation)
    drawn = gaps(arrivals)
    assert drawn.mean() == pytest.approx(0.25, rel=0.05)
    assert drawn.std() / drawn.mean() == pytest.approx(variation, rel=0.05)


def test_no_variation_is_a_clock():
    drawn = gaps(gamma_arrivals(CONTENT, num_requests=9, rate_per_s=4.0, variation=0.0))
    assert drawn == pytest.approx([0.25] * 9)


def test_popular_groups_are_used_more():
    content = Content(FixedLength(64), FixedLength(1), 32, num_groups=4, group_skew=1.0)
    groups = Counter(a.group for a in simultaneous_arrivals(content, num_requests=8000))
    assert groups[0] / groups[3] == pytest.approx(4.0, rel=0.15)


def test_no_prompt_is_shorter_than_what_it_shares():
    content = Content(UniformLength(1, 100), FixedLength(1), num_shared_tokens=50)
    arrivals = simultaneous_arrivals(content, num_requests=500)
    assert min(arrival.num_prompt_tokens for arrival in arrivals) == 50
    assert {arrival.time_s for arrival in arrivals} == {0.0}


@pytest.mark.parametrize(
    "make",
    [
        lambda: poisson_arrivals(CONTENT, num_requests=0, rate_per_s=1.0),
        lambda: poisson_arrivals(CONTENT, num_requests=1, rate_per_s=0.0),
        lambda: gamma_arrivals(CONTENT, num_requests=1, rate_per_s=1.0, variation=-1.0),
        lambda: Content(FixedLength(1), FixedLength(1), num_groups=0),
    ],
)
def test_impossible_loads_are_refused_with_a_fix(make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.fix
