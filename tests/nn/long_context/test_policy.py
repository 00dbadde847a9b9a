"""What policies can be used with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from weft.core.errors import ConfigError, UnsupportedError
from weft.nn.long_context.policy import (
    MAX_POSITION,
    HeavyHitter,
    SinkWindow,
    cache_spec,
    check_policy,
)
from weft.spec import (
    AttentionSpec,
    LayerSpec,
    LearnedPositions,
    MLASpec,
    MLPSpec,
    ModelSpec,
    RotaryScaling,
    RotarySpec,
)

MIXER = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16)
SINKS, NEAR = SinkWindow(4, 8), SinkWindow(4, 8, positions="cache")
HITTERS = HeavyHitter(8, 4)
YARN = RotarySpec(scaling=RotaryScaling("yarn", 4.0))


def spec(*mixers) -> ModelSpec:
    layers = tuple(LayerSpec(mixer, MLPSpec(48)) for mixer in mixers)
    return ModelSpec("llama", 61, 32, layers, context_length=64)


@pytest.mark.parametrize("policy", [SINKS, NEAR, HITTERS], ids=str)
@pytest.mark.parametrize(
    ("mixer", "reason"),
    [
        (MLASpec(3, 32, 16, 8, 16), "MLASpec keeps no keys of single heads"),
        (replace(MIXER, alibi=True, rotary=None), "fall with distance"),
    ],
)
def test_mixers_without_plain_keys_are_refused(policy, mixer, reason) -> None:
    with pytest.raises(UnsupportedError, match=f"does not fit layer 1: .*{reason}"):
        check_policy(policy, spec(MIXER, mixer), 64)


@pytest.mark.parametrize(
    ("policy", "mixer", "reason"),
    [
        (SINKS, replace(MIXER, window=9), "window of 9 is wider than the policy's 8"),
        (HITTERS, replace(MIXER, window=4), "already forgets"),
        (HITTERS, replace(MIXER, kv_source=0), "keys of another layer"),
        (NEAR, replace(MIXER, rotary=YARN), "in two steps"),
        (NEAR, replace(MIXER, rotary=RotarySpec(sections=(4, 2, 2))), "several axes"),
    ],
)
def test_what_one_policy_cannot_do_is_refused(policy, mixer, reason) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        check_policy(policy, spec(MIXER, mixer), 64)


def test_what_fits_passes() -> None:
    check_policy(SINKS, spec(MIXER, replace(MIXER, window=8), replace(MIXER, kv_source=0)), 64)
    check_policy(SINKS, spec(replace(MIXER, rotary=YARN)), 64)
    check_policy(NEAR, spec(replace(MIXER, rotary=None)), 64)
    check_policy(HITTERS, spec(replace(MIXER, softcap=3.0, sinks=True)), 64)


def test_a_table_of_positions_is_refused() -> None:
    gpt2 = replace(spec(replace(MIXER, rotary=None)), positions=LearnedPositions(64))
    with pytest.raises(UnsupportedError, match="has a table"):
        check_policy(SINKS, gpt2, 10)


def test_only_positions_in_the_cache_reach_beyond_the_context() -> None:
    for policy in (SINKS, HITTERS):
        check_policy(policy, spec(MIXER), 64)
        with pytest.raises(ConfigError, match="it reaches 64"):
            check_policy(policy, spec(MIXER), 65)
    check_policy(NEAR, spec(MIXER), 100_000)
    with pytest.raises(ConfigError, match="max_context"):
        check_policy(NEAR, spec(MIXER), MAX_POSITION + 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SinkWindow(-1, 4), "num_sinks is -1"),
        (lambda: SinkWindow(4, 0), "window 0"),
        (lambda: HeavyHitter(4, 4), "recent is 4 of a budget of 4"),
        (lambda: HeavyHitter(0, 0), "budget of 0"),
    ],
)
def test_sizes_out_of_range_are_refused(make, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_heavy_hitters_turn_what_grows_into_a_state() -> None:
    kept = cache_spec(HITTERS, spec(MIXER, MIXER))
    assert kept.cache_values_per_token == 0
    assert kept.has_states
    assert kept.layers[0].mixer.state_values == 2 * 8 * (2 * 16 + 2)
    assert cache_spec(HITTERS, kept) == kept
    assert cache_spec(None, spec(MIXER)) == spec(MIXER)


def test_sinks_turn_every_layer_into_one_with_a_window() -> None:
    kept = cache_spec(SINKS, spec(MIXER, replace(MIXER, window=3)))
    assert [layer.mixer.window for layer in kept.layers] == [8, 3]
    assert kept.window == 8
