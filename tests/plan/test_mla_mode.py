from __future__ import annotations

import math

import pytest

from weft.core.errors import ConfigError
from weft.plan.mla_mode import (
    MLAFlops,
    MLAShape,
    absorbed_flops,
    break_even_tokens,
    expanded_flops,
    prefer_absorbed,
)

GI = 2**30


def test_ten_new_tokens_of_deepseek_v3_part_by_part():
    expanded, absorbed = expanded_flops(MLAShape(), 10, 0), absorbed_flops(MLAShape(), 10, 0)
    assert _gi(expanded) == (0.908203125, 0.389404296875, 0.00762939453125, 2.1875)
    assert _gi(absorbed) == (1.064453125, 0.076904296875, 0.02593994140625, 2.34375)
    assert expanded.total / GI == 3.49273681640625
    assert absorbed.total / GI == 3.51104736328125


@pytest.mark.parametrize("new", [1, 10, 200])
@pytest.mark.parametrize("cached", [0, 7, 1000])
def test_difference_of_the_sums_is_the_closed_form(new: int, cached: int):
    difference = (
        expanded_flops(MLAShape(), new, cached).total
        - absorbed_flops(MLAShape(), new, cached).total
    )
    assert difference == 2 * 128 * (131072 * cached - 768 * new**2 - 768 * new * cached)
    assert prefer_absorbed(new, cached) == (difference > 0)


@pytest.mark.parametrize(
    ("cached", "new"), [(10, 36.6), (100, 89.9), (1000, 148.6), (1e4, 167.8), (math.inf, 170.67)]
)
def test_break_even_of_deepseek_v3(cached: float, new: float):
    assert break_even_tokens(cached) == pytest.approx(new, abs=0.05)


@pytest.mark.parametrize("cached", [10, 100, 1000, 10_000])
def test_selector_flips_at_break_even(cached: int):
    new = break_even_tokens(cached)
    assert prefer_absorbed(math.floor(new), cached)
    assert not prefer_absorbed(math.ceil(new), cached)


def test_an_empty_cache_is_never_absorbed():
    assert not prefer_absorbed(1, 0)


def test_a_narrow_latent_is_always_absorbed():
    assert break_even_tokens(5, kv_rank=64, nope_dim=64, value_dim=64) == math.inf
    assert prefer_absorbed(10_000, 5, kv_rank=64, nope_dim=64, value_dim=64)


def test_a_single_query_projection_has_no_rank():
    shape = MLAShape(query_rank=None)
    assert shape.query_parameters == 7168 * 128 * 192


def test_widths_are_positive():
    with pytest.raises(ConfigError, match="kv_rank is 0"):
        MLAShape(kv_rank=0)


def _gi(flops: MLAFlops) -> tuple[float, ...]:
    return tuple(part / GI for part in (flops.query, flops.kv, flops.attention, flops.output))
