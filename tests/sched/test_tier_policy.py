from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.sched.tier_policy import ReadOrCompute, Tier, TierConfig

H, D = Tier.HOST, Tier.DISK
# A block of 1 MB and 16 tokens: 1 ms from the host, 5 ms from disk, 2 ms to compute.
CONFIG = TierConfig(
    host_bytes=2**30,
    disk_bytes=2**30,
    host_bandwidth=1e9,
    disk_bandwidth=0.25e9,
    host_latency_s=4.5e-3,
    disk_latency_s=10e-3,
    prefill_tokens_per_s=8000.0,
)


def policy(**changes: float) -> ReadOrCompute:
    values = {name: getattr(CONFIG, name) for name in vars(CONFIG)}
    return ReadOrCompute(TierConfig(**values | changes), block_bytes=10**6, block_size=16)


def test_answer_flips_at_the_break_even_computed_by_hand():
    # Each block saves 2 - 1 ms and the first byte costs 4.5 ms: four blocks lose, five win.
    assert policy().num_to_read([H] * 4) == 0
    assert policy().num_to_read([H] * 5) == 5
    # At 16,000 tokens/s computing takes the 1 ms that reading takes: never worth the latency.
    assert policy(prefill_tokens_per_s=16_000).num_to_read([H] * 1000) == 0
    assert policy(prefill_tokens_per_s=15_000).num_to_read([H] * 67) == 0
    assert policy(prefill_tokens_per_s=15_000).num_to_read([H] * 68) == 68


def test_a_block_on_disk_pays_both_ways():
    assert policy().seconds_per_block(H) == pytest.approx(1e-3)
    assert policy().seconds_per_block(D) == pytest.approx(5e-3)
    # 2 ms to compute against 5 ms to read: never. At 2,000 tokens/s computing takes 8 ms, each
    # block saves 3 ms, and the first byte costs 10 ms: three blocks lose, four win.
    assert policy().num_to_read([D] * 1000) == 0
    assert policy(prefill_tokens_per_s=2000).num_to_read([D] * 3) == 0
    assert policy(prefill_tokens_per_s=2000).num_to_read([D] * 4) == 4


def test_the_part_that_pays_is_read_and_the_rest_computed():
    slow_disk = policy()
    assert slow_disk.num_to_read([H] * 10 + [D] * 10) == 10
    # Three disk blocks cost 10 + 9 ms more than computing; 30 behind them win that back.
    assert slow_disk.num_to_read([H] * 10 + [D] * 3 + [H] * 5) == 10
    assert slow_disk.num_to_read([H] * 10 + [D] * 3 + [H] * 30) == 43


def test_reading_ends_where_computing_can_go_on():
    assert policy().num_to_read([H] * 20, stops=(8, 16)) == 16
    assert policy().num_to_read([H] * 20, stops=(3,)) == 0
    assert policy().num_to_read([H] * 20, stops=()) == 0


@given(st.lists(st.sampled_from([H, D]), max_size=12), st.sets(st.integers(1, 12)))
def test_no_other_stop_is_faster(tiers: list[Tier], stops: set[int]):
    chosen = policy(prefill_tokens_per_s=3000)

    def seconds(num_read: int) -> float:
        read = tiers[:num_read]
        latency_s = 4.5e-3 * (H in read) + 10e-3 * (D in read)
        compute_s = (len(tiers) - num_read) * 16 / 3000
        return latency_s + sum(1e-3 if tier is H else 5e-3 for tier in read) + compute_s

    got = chosen.num_to_read(tiers, stops)
    allowed = [0, *(stop for stop in stops if stop <= len(tiers))]
    assert got in allowed
    assert seconds(got) == pytest.approx(min(map(seconds, allowed)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host_bytes": 0}, "0 bytes of host memory"),
        ({"host_bytes": 1, "disk_bytes": -1}, "-1 of disk space"),
        ({"host_bytes": 1, "write_policy": "sometimes"}, "'sometimes'"),
        ({"host_bytes": 1, "host_bandwidth": 0.0}, "host_bandwidth is 0.0"),
        ({"host_bytes": 1, "prefill_tokens_per_s": float("nan")}, "is nan"),
        ({"host_bytes": 1, "disk_latency_s": -1.0}, "disk_latency_s is -1.0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TierConfig(**settings)
