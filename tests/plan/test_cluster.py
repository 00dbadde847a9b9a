"""Plans against published runs."""

from __future__ import annotations

import pytest

from weft.plan.cluster import plan_cluster
from weft.spec.families import spec_from_hf

LLAMA_3_1_405B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_hidden_layers": 126,
    "num_attention_heads": 128,
    "num_key_value_heads": 8,
}


def test_llama_405b_took_about_two_months() -> None:
    """Meta: 3.8e25 FLOPs on 16 K H100s, 15.6 T tokens; 54 days were one snapshot of it."""
    plan = plan_cluster(
        spec_from_hf(LLAMA_3_1_405B),
        num_tokens=15.6e12,
        num_devices=16384,
        peak_flops=989e12,
        sequence_length=8192,
    )
    assert plan.flops == pytest.approx(3.8e25, rel=0.05)
    assert plan.num_parameters == pytest.approx(405.85e9, rel=1e-3)
    assert 50 < plan.duration_s.value / 86400 < 85


def test_sharding_divides_the_state() -> None:
    plan = plan_cluster(
        spec_from_hf(LLAMA_3_1_405B),
        num_tokens=1e9,
        num_devices=100,
        peak_flops=1e15,
        sequence_length=4096,
    )
    assert plan.state_bytes == 16 * plan.num_parameters
    assert plan.state_bytes_per_device == -(-plan.state_bytes // 100)
