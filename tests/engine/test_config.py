"""The size of the KV cache: one number decides it, and the arithmetic is shown."""

from __future__ import annotations

import pytest
import torch

from tests.engine.support import model
from weft.core.errors import ConfigError, ResourceError
from weft.engine import memory as memory_module
from weft.engine.config import EngineConfig
from weft.engine.memory import plan_memory
from weft.models.decoder import Decoder
from weft.nn.kv_cache import KVCache
from weft.spec import ModelShape

BYTES_PER_TOKEN = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, width, float32


@pytest.mark.parametrize(
    ("settings", "num_blocks"),
    [
        ({"num_blocks": 5}, 5),
        ({"kv_tokens": 33}, 3),
        ({"kv_memory_bytes": 10 * 16 * BYTES_PER_TOKEN + 1}, 10),
        ({"max_num_sequences": 3, "max_context": 20}, 6),
    ],
)
def test_blocks_follow_from_the_one_size_given(settings, num_blocks):
    plan = plan_memory(EngineConfig(**settings), model())
    assert plan.num_blocks == num_blocks
    assert plan.block_bytes == 16 * BYTES_PER_TOKEN


def test_without_a_size_memory_is_the_limit(monkeypatch):
    monkeypatch.setattr(memory_module, "total_memory_bytes", lambda: 4 * 7 * 16 * BYTES_PER_TOKEN)
    plan = plan_memory(EngineConfig(), model())
    assert plan.num_blocks == 7
    assert "25% of cpu memory" in plan.text


def test_plan_counts_the_bytes_that_are_really_taken():
    config = EngineConfig(num_blocks=6, kv_dtype="bfloat16")
    plan = plan_memory(config, model())
    cache = KVCache(model().spec, num_blocks=6, block_size=16, dtype=torch.bfloat16)
    assert plan.kv_bytes == cache.size_bytes
    assert plan.weight_bytes == sum(p.numel() * 4 for p in model().parameters())


def test_text_shows_the_arithmetic():
    text = plan_memory(EngineConfig(num_blocks=64, block_size=4), model()).text
    assert "64 blocks x 4 tokens x 256 bytes per token (engine.num_blocks)" in text
    assert "2.0 sequences of 128 tokens" in text
    assert "KV cache  64.0 KiB" in text


def test_two_sizes_are_refused():
    with pytest.raises(ConfigError, match="sized twice: kv_tokens=8, num_blocks=2"):
        EngineConfig(kv_tokens=8, num_blocks=2)


@pytest.mark.parametrize("name", ["num_blocks", "kv_tokens", "kv_memory_bytes", "block_size"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        EngineConfig(**{name: 0})


def test_memory_for_less_than_one_block_is_refused():
    with pytest.raises(ResourceError, match=r"gets no block: one takes 4\.0 KiB"):
        plan_memory(EngineConfig(kv_memory_bytes=4095), model())


def test_context_beyond_the_models_is_refused():
    with pytest.raises(ConfigError, match="max_context is 129, the model's context is 128"):
        plan_memory(EngineConfig(max_context=129), model())


def test_cache_has_the_models_type_unless_told():
    half = Decoder(ModelShape(dim=16, num_layers=1).build(50), dtype=torch.bfloat16)
    assert EngineConfig().cache_dtype(half.dtype) is torch.bfloat16
    assert EngineConfig(kv_dtype="float32").cache_dtype(half.dtype) is torch.float32
