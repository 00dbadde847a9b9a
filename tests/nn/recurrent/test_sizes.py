"""The size of a state: counted from the description, taken by the cache, the same at any length."""

from __future__ import annotations

import pytest
import torch

from tests.nn.paged import BLOCK_SIZE, paged_step
from tests.nn.recurrent.models import MIXERS, build, model_spec
from weft.core.errors import ConfigError
from weft.nn.kv_cache import KVCache, bytes_per_block, bytes_per_sequence
from weft.spec import GatedDeltaNetSpec, KimiDeltaSpec, LinearAttentionSpec, MatrixRWKVSpec


def test_state_of_a_layer_in_two_byte_numbers():
    # Rows R14, R15 and PM06: 2 Hv dk dv + 2 (2 dk Hk + dv Hv)(taps - 1).
    assert 2 * GatedDeltaNetSpec(16, 32, 128, 128).state_values == 1_097_728
    assert 2 * KimiDeltaSpec(32, 128).state_values == 1_122_304


def test_the_engine_keeps_matrices_in_float32():
    gated, kimi = GatedDeltaNetSpec(16, 32, 128, 128), KimiDeltaSpec(32, 128)
    for mixer, conv_values in ((gated, 8192 * 3), (kimi, 12288 * 3)):
        matrix = 32 * 128 * 128
        assert mixer.state_values == matrix + conv_values
        assert mixer.states["matrix"].dtype == "float32"
        assert mixer.states["conv"].dtype == "model"


@pytest.mark.parametrize("name", MIXERS)
def test_decoding_takes_no_memory_that_grows(name):
    # Row G31.
    model = build(name)
    cache = KVCache(model.spec, num_blocks=16, block_size=BLOCK_SIZE, num_sequences=1)
    assert bytes_per_block(model.spec, BLOCK_SIZE, torch.float32) == 0
    assert cache.size_bytes == bytes_per_sequence(model.spec, torch.float32) > 0
    for position in range(40):
        hidden_TD = paged_step(model, cache, [([position % 7], position, range(16), 0)])
    assert hidden_TD.isfinite().all()
    assert cache.size_bytes == bytes_per_sequence(model.spec, torch.float32)
    for layer, spec in zip(cache.states, model.spec.layers, strict=True):
        for state, tensor in layer.items():
            assert tensor.shape == (1, *spec.states[state].shape)
            assert tensor.abs().max() > 0, "every state is written"


def test_hybrid_models_cache_tokens_in_their_attention_layers_only():
    spec = model_spec("gated-delta", hybrid=True)
    assert [bool(layer.token_cache) for layer in spec.layers] == [False, True, False]
    assert [bool(layer.states) for layer in spec.layers] == [True, False, True]


def test_descriptions_that_contradict_themselves_are_refused():
    with pytest.raises(ConfigError, match="6 value heads cannot share 4 key heads"):
        GatedDeltaNetSpec(4, 6, 8, 8)
    with pytest.raises(ConfigError, match="several decays: gate_rank=4, retention=True"):
        LinearAttentionSpec(2, 8, 8, retention=True, gate_rank=4)
    with pytest.raises(ConfigError, match="several decays"):
        LinearAttentionSpec(2, 8, 8, retention=True, lightning=1.0)
    with pytest.raises(ConfigError, match=r"lightning is -1\.0"):
        LinearAttentionSpec(2, 8, 8, lightning=-1.0)
    with pytest.raises(ConfigError, match="shift_rank=4 and decay_rank=None"):
        MatrixRWKVSpec(32, 4, 8, shift_rank=4)
