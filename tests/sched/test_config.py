from __future__ import annotations

import dataclasses

import pytest

from weft.core.config import fields
from weft.core.errors import ConfigError
from weft.sched.config import SchedulerConfig


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_blocks": 0}, "num_blocks is 0"),
        ({"block_size": 0}, "block_size is 0"),
        ({"max_context": 1}, "max_context is 1"),
        ({"max_waiting": 0}, "max_waiting is 0"),
        ({"long_prefill_threshold": 0}, "long_prefill_threshold is 0"),
        ({"window": 0}, "window is 0"),
        ({"max_tokens_per_step": 100}, "below max_num_sequences 256"),
        ({"admission_reserve": 1.0}, "admission_reserve is 1.0"),
    ],
)
def test_impossible_numbers_are_refused_with_a_fix(change, words):
    with pytest.raises(ConfigError, match=words) as caught:
        SchedulerConfig(**{"num_blocks": 10, "max_context": 100, **change})
    assert caught.value.fix


def test_the_smaller_of_context_and_cache_limits_a_sequence():
    config = SchedulerConfig(num_blocks=10, max_context=100, block_size=4)
    assert config.context_limit == 40
    assert dataclasses.replace(config, max_context=30).context_limit == 30


def test_windows_bound_what_a_sequence_holds_unless_prefixes_are_kept():
    config = SchedulerConfig(
        num_blocks=10, max_context=1000, block_size=4, max_num_sequences=4,
        max_tokens_per_step=20, window=13, enable_prefix_cache=False,
    )  # fmt: skip
    assert (config.ring_blocks, config.context_limit) == (8, 1000)
    short = dataclasses.replace(config, long_prefill_threshold=4)
    assert short.ring_blocks == 4
    tight = dataclasses.replace(config, num_blocks=7)
    assert tight.context_limit == 28
    shared = dataclasses.replace(config, enable_prefix_cache=True)
    assert (shared.ring_blocks, shared.context_limit) == (None, 40)


def test_every_field_is_documented():
    config = SchedulerConfig(num_blocks=10, max_context=100)
    assert all(field.help for field in fields(config))


def test_sinks_are_blocks_beside_the_ring():
    config = SchedulerConfig(
        num_blocks=10, max_context=1000, block_size=4, max_num_sequences=4,
        max_tokens_per_step=20, window=13, num_sinks=5, enable_prefix_cache=False,
    )  # fmt: skip
    assert (config.sink_blocks, config.ring_blocks, config.context_limit) == (2, 8, 1000)
    assert dataclasses.replace(config, num_blocks=9).context_limit == 36
    assert dataclasses.replace(config, enable_prefix_cache=True).sink_blocks == 0
