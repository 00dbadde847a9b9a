"""Every mixture of the literature builds, learns, and is what its paper says."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from weft.models.decoder import Decoder
from weft.nn.context import StepContext
from weft.nn.moe.losses import balance_loss
from weft.spec import MLPSpec, ModelShape
from weft.spec.mixtures import MIXTURES


def decoder(name: str) -> Decoder:
    spec = ModelShape(dim=16, num_layers=2, num_heads=2, num_kv_heads=1).build(40)
    moe = MIXTURES[name](8, MLPSpec(12))
    layers = tuple(dataclasses.replace(layer, ffn=moe) for layer in spec.layers)
    return Decoder(dataclasses.replace(spec, layers=layers), seed=0)


@pytest.mark.parametrize("name", MIXTURES)
def test_gradients_reach_every_parameter_that_is_used(name: str):
    torch.manual_seed(0)
    model, ctx = decoder(name).train(), StepContext.packed([40, 24])
    hidden = model(torch.arange(64) % 40, ctx)
    losses = [balance_loss(record, ctx.lengths) for record in ctx.routing.values()]
    (hidden.square().mean() + sum(losses)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name
    routers = [p for n, p in model.named_parameters() if n.endswith("router.weight")]
    assert len(routers) == (0 if name == "hash_layer" else 2)
    assert all(bool(router.grad.any()) for router in routers)


def test_settings_are_the_papers():
    expert = MLPSpec(12)
    built = {name: make(64, expert) for name, make in MIXTURES.items()}
    assert {name: moe.top_k for name, moe in built.items()} == {
        "noisy_top_k": 4, "gshard": 2, "switch": 1, "glam": 2, "st_moe": 2, "expert_choice": 2,
        "hash_layer": 1,
    }  # fmt: skip
    assert built["gshard"].capacity(4096) == 2 * 4096 // 64
    assert built["switch"].capacity(4096) == 80
    assert (built["st_moe"].router.z_loss, built["st_moe"].capacity_factor) == (0.001, 1.25)
    assert built["glam"].router.aux_loss == 0.01
