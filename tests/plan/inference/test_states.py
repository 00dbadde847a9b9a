from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.plan.inference.states import (
    CacheSize,
    crossover_tokens,
    mixer_cache,
    model_cache,
    snapshot_bytes_per_token,
)
from weft.plan.models import public_model
from weft.spec import AttentionSpec, GatedDeltaNetSpec, KimiDeltaSpec, MLASpec

KDA = KimiDeltaSpec(num_heads=32, head_dim=128)
GDN = GatedDeltaNetSpec(num_key_heads=16, num_value_heads=32, key_dim=128, value_dim=128)
MLA = MLASpec(128, 512, 128, 64, 128)
GQA = AttentionSpec(num_heads=16, num_kv_heads=2, head_dim=256)


def test_states_of_linear_attention():
    """PM06: matrix and convolution inputs, two bytes each."""
    assert mixer_cache(KDA).fixed_bytes == 1_122_304
    assert mixer_cache(GDN).fixed_bytes == 1_097_728


def test_crossover_with_key_value_caches():
    """PM06: 975 tokens of a latent, 536 of two heads of 256."""
    assert crossover_tokens(mixer_cache(KDA), mixer_cache(MLA)) == 975
    assert crossover_tokens(mixer_cache(GDN), mixer_cache(GQA)) == 536


def test_a_crossover_is_the_first_length_at_which_the_state_is_no_larger():
    state, cache = mixer_cache(KDA), mixer_cache(MLA)
    tokens = crossover_tokens(state, cache)
    assert tokens is not None
    assert state.at(tokens) <= cache.at(tokens)
    assert state.at(tokens - 1) > cache.at(tokens - 1)


def test_tensor_parallelism_cuts_states_and_heads_but_not_latents():
    assert mixer_cache(GDN, tensor=4).fixed_bytes == mixer_cache(GDN).fixed_bytes / 4
    assert mixer_cache(GQA, tensor=8).bytes_per_token == mixer_cache(GQA).bytes_per_token / 2
    assert mixer_cache(MLA, tensor=8).bytes_per_token == mixer_cache(MLA).bytes_per_token == 1152


def test_a_state_kept_in_float32_is_about_twice_as_large():
    ratio = mixer_cache(GDN, float32_state=True).fixed_bytes / mixer_cache(GDN).fixed_bytes
    assert 1.8 < ratio < 2.0


def test_snapshots_cost_the_state_over_the_interval():
    """PM07: a snapshot every 128 tokens is 8,576 bytes per token."""
    assert snapshot_bytes_per_token(mixer_cache(GDN), 128) == 8576


def test_a_whole_model_adds_up():
    assert model_cache(public_model("DeepSeek-V3")) == CacheSize(0.0, 61 * 1152)


def test_a_cache_that_never_outgrows_has_no_crossover():
    assert crossover_tokens(mixer_cache(KDA), CacheSize(10.0, 0.0)) is None


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError):
        mixer_cache(KDA, tensor=0)
    with pytest.raises(ConfigError):
        snapshot_bytes_per_token(mixer_cache(KDA), 0)
