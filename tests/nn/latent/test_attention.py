"""The latent attention module: worked sizes, packed and paged contexts, options."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.nn.paged import assert_packed_equals_paged
from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.latent.attention import LatentAttention
from weft.spec import (
    IndexerSpec,
    LayerSpec,
    MLASpec,
    MLPSpec,
    ModelSpec,
    NormSpec,
    RotaryScaling,
    RotarySpec,
)

DEEPSEEK_V3 = MLASpec(128, 512, 128, 64, 128, query_latent_dim=1536)
SMALL = MLASpec(4, 32, 16, 8, 12, rotary=RotarySpec(layout="interleaved"))
VARIANTS = {
    "direct queries": SMALL,
    "query latent": dataclasses.replace(SMALL, query_latent_dim=24),
    "bias": dataclasses.replace(SMALL, query_latent_dim=24, bias=True),
    "half": dataclasses.replace(SMALL, rotary=RotarySpec(layout="half")),
    "no positions": dataclasses.replace(SMALL, rotary=None),
    "no rope part": dataclasses.replace(SMALL, rotary=None, rope_head_dim=0),
    "gate": dataclasses.replace(SMALL, output_gate=True),
    "indexer": dataclasses.replace(
        SMALL, query_latent_dim=24, indexer=IndexerSpec(16, 16, top_k=5)
    ),
    "values wider than keys": dataclasses.replace(SMALL, value_head_dim=40),
}


def model(mixer: MLASpec) -> Decoder:
    return Decoder(ModelSpec("latent", 97, 48, (LayerSpec(mixer, MLPSpec(64)),) * 2), seed=2)


def test_layer_of_deepseek_v3_has_its_published_parameters() -> None:
    layer = LatentAttention(7168, DEEPSEEK_V3, layer=0, norm=NormSpec(), device="meta")
    assert sum(parameter.numel() for parameter in layer.parameters()) == 187_107_328


def test_cache_of_deepseek_v3_takes_70272_bytes_per_token() -> None:
    assert DEEPSEEK_V3.cache_values_per_token == 576
    spec = ModelSpec("latent", 8, 8, (LayerSpec(DEEPSEEK_V3, MLPSpec(8)),) * 61)
    assert spec.cache_values_per_token * torch.bfloat16.itemsize == 70_272


@pytest.mark.parametrize("name", VARIANTS)
def test_packed_equals_paged(name: str) -> None:
    assert_packed_equals_paged(model(VARIANTS[name]), vocab_size=97, chunks=(1, 3, 7))


def test_query_latent_and_kv_latent_come_from_one_product() -> None:
    layer = LatentAttention(48, VARIANTS["query latent"], layer=0, norm=NormSpec())
    assert layer.down.weight.shape == (24 + 32 + 8, 48)


def test_indexer_that_keeps_everything_changes_nothing() -> None:
    wide = dataclasses.replace(SMALL, query_latent_dim=24, indexer=IndexerSpec(16, 16, top_k=64))
    sparse, dense = model(wide), model(VARIANTS["query latent"])
    weights = {k: v for k, v in sparse.state_dict().items() if ".indexer." not in k}
    dense.load_state_dict(weights)
    tokens_T = torch.arange(30)
    ctx = StepContext.packed([30])
    assert torch.equal(sparse(tokens_T, ctx), dense(tokens_T, ctx))


def test_indexer_selects_and_gets_no_gradient_from_the_output() -> None:
    sparse = model(VARIANTS["indexer"])
    sparse(torch.arange(30), StepContext.packed([30])).sum().backward()
    missing = {name for name, p in sparse.named_parameters() if p.grad is None}
    assert missing == {name for name, _ in sparse.named_parameters() if ".indexer." in name} | {
        "head.weight"
    }


def test_yarn_sharpens_the_softmax_as_deepseek_does() -> None:
    scaling = RotaryScaling("yarn", 40.0, original_context=4096, mscale=1.0, mscale_all_dim=1.0)
    spec = dataclasses.replace(DEEPSEEK_V3, rotary=RotarySpec(scaling=scaling))
    # 0.1 ln 40 + 1 = 1.368888; squared, over sqrt(192).
    assert spec.softmax_scale == pytest.approx(1.3688879**2 / 192**0.5, rel=1e-6)
    assert DEEPSEEK_V3.softmax_scale == pytest.approx(192**-0.5)
