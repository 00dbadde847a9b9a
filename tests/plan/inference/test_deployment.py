from __future__ import annotations

import pytest

from weft.core.errors import ConfigError, ResourceError
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.deployment import Deployment, Storage
from weft.plan.models import public_model

FP8 = Storage(ffn="float8", mixer="float8", kv="float8")


def deploy(name: str, num_devices: int, storage: Storage = FP8, **layout: int) -> Deployment:
    return Deployment(
        public_model(name), Cluster.of("H200", num_devices), storage=storage, **layout
    )


def test_weights_and_cache_of_a_grouped_query_model():
    one, four = deploy("Llama-3.1-70B", 1), deploy("Llama-3.1-70B", 4, tensor=4)
    ends = 2 * 128256 * 8192 * 2  # embedding and head stay in two bytes
    assert one.weight_bytes == pytest.approx(80 * 855_638_016 + ends, rel=1e-3)
    assert four.weight_bytes == pytest.approx(one.weight_bytes / 4, rel=1e-6)
    assert one.kv_bytes_per_token == 2 * 80 * 8 * 128
    assert four.kv_bytes_per_token == one.kv_bytes_per_token / 4


def test_few_heads_and_latents_are_copied_not_cut():
    assert deploy("Qwen3-235B-A22B", 8, tensor=8).kv_bytes_per_token == 94 * 2 * 128
    latent = deploy("DeepSeek-V3", 8, tensor=8).kv_bytes_per_token
    assert latent == deploy("DeepSeek-V3", 8, data=8, expert=8).kv_bytes_per_token == 61 * 576


def test_data_parallel_attention_multiplies_the_cache():
    """Copies of a latent are wasted; eight groups of one hold eight times as many tokens."""
    tensor = deploy("DeepSeek-V3", 8, tensor=8).kv_capacity_tokens()
    data = deploy("DeepSeek-V3", 8, data=8, expert=8).kv_capacity_tokens()
    assert data > 4 * tensor


def test_windowed_layers_do_not_fill_the_cache():
    assert deploy("gpt-oss-120b", 1).kv_bytes_per_token == 18 * 2 * 8 * 64


def test_a_model_that_does_not_fit_says_how_many_devices_would_do():
    with pytest.raises(ResourceError) as caught:
        _ = deploy("Llama-3.1-405B", 1).kv_capacity_tokens()
    assert "per device" in str(caught.value)
    assert "3.3 times as many devices" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("num_devices", "layout"),
    [(8, {"tensor": 4}), (8, {"tensor": 8, "expert": 3}), (1, {"tensor": 0})],
)
def test_layouts_that_do_not_cover_the_devices_are_refused(num_devices, layout):
    with pytest.raises(ConfigError):
        deploy("DeepSeek-V3", num_devices, **layout)


def test_an_estimate_and_the_engine_agree_on_bytes_per_token():
    spec = public_model("Qwen3-0.6B")
    deployment = Deployment(spec, Cluster.of("H200", 1))
    assert deployment.kv_bytes_per_token == spec.cache_values_per_token * 2
