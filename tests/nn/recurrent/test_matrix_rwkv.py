"""RWKV-5 and RWKV-6, which transformers lacks, held to the paper's equations token by token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.nn.recurrent.models import DIM
from weft.nn.build import build_mixer
from weft.nn.context import StepContext
from weft.nn.recurrent.matrix_rwkv import MatrixRWKV
from weft.spec import MatrixRWKVSpec, NormSpec

LENGTH = 21
EAGLE = MatrixRWKVSpec(DIM, 3, 8)
FINCH = MatrixRWKVSpec(DIM, 3, 8, shift_rank=4, decay_rank=5)


def mixer(spec: MatrixRWKVSpec) -> MatrixRWKV:
    """Return a mixer whose every parameter is random."""
    built = build_mixer(DIM, spec, layer=0, norm=NormSpec())
    assert isinstance(built, MatrixRWKV)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(0.0, 0.4, generator=generator)
    return built


def tokens() -> Tensor:
    return torch.randn(LENGTH, DIM, generator=torch.Generator().manual_seed(0))


def lerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    return a + (b - a) * share


def time_mixing(layer: MatrixRWKV, r: Tensor, k: Tensor, v: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Section 4: one head at a time, all sums written out; ``w`` [T, M] are decays."""
    heads, outputs = range(layer.spec.num_heads), []
    for t in range(LENGTH):
        parts = []
        for n in heads:
            rows = slice(8 * n, 8 * n + 8)
            total = torch.outer(layer.bonus[n] * k[t, rows], v[t, rows])
            for j in range(t):
                decay = w[j + 1 : t, rows].prod(0)
                total = total + torch.outer(decay * k[j, rows], v[j, rows])
            read = r[t, rows] @ total
            centred = read - read.mean()
            read = centred / (centred.square().mean() + 64e-5).sqrt()
            parts.append(read * layer.norm.weight[rows] + layer.norm.bias[rows])
        outputs.append(torch.cat(parts))
    return layer.out(F.silu(g) * torch.stack(outputs))


def by_definition(layer: MatrixRWKV) -> Tensor:
    x = tokens()
    before = torch.cat([torch.zeros(1, DIM), x[:-1]])
    maps = (layer.receptance, layer.key, layer.value, layer.gate)
    if layer.spec.shift_rank is None:
        inputs = [lerp(x, before, share) for share in layer.mix]
        decay = layer.decay.flatten().expand(LENGTH, -1)
    else:
        # Section 4.2: a low-rank map of a fixed blend moves the shares.
        blend = lerp(x, before, layer.mix_low)
        lows = layer.shift_low.weight.split(4)
        inputs = [
            lerp(x, before, share + torch.tanh(blend @ low.T) @ up)
            for share, low, up in zip(layer.mix, lows, layer.shift_up, strict=True)
        ]
        low = torch.tanh(layer.decay_low(inputs[4]))
        decay = layer.decay.flatten() + low @ layer.decay_up.T
    projected = [project(part) for project, part in zip(maps, inputs[:4], strict=True)]
    return time_mixing(layer, *projected, torch.exp(-torch.exp(decay)))


@pytest.mark.parametrize("spec", [EAGLE, FINCH], ids=["rwkv-5", "rwkv-6"])
def test_time_mixing_is_its_equations(spec: MatrixRWKVSpec):
    layer = mixer(spec)
    got = layer(tokens(), StepContext.packed([LENGTH]))
    torch.testing.assert_close(got, by_definition(layer), atol=2e-5, rtol=1e-4)


def test_rwkv_6_without_its_maps_is_rwkv_5():
    finch, eagle = mixer(FINCH), mixer(EAGLE)
    with torch.no_grad():
        finch.shift_up.zero_()
        finch.decay_up.zero_()
    parameters = finch.state_dict()
    parameters["mix"] = parameters["mix"][:4]
    eagle.load_state_dict({name: parameters[name] for name in eagle.state_dict()})
    ctx = StepContext.packed([LENGTH])
    torch.testing.assert_close(finch(tokens(), ctx), eagle(tokens(), ctx))
