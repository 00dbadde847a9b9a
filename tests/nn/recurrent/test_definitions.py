"""Layers that transformers lacks, held to definitions written token by token from the papers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nn.recurrent.models import DIM
from weft.models.init import init_weights
from weft.nn.build import build_mixer
from weft.nn.context import StepContext
from weft.nn.positions import alibi_slopes
from weft.nn.recurrent.linear_attention import LinearAttention
from weft.nn.recurrent.norm import GatedRMSNorm
from weft.spec import LinearAttentionSpec, ModelShape, NormSpec

LENGTH = 45


def mixer(spec: LinearAttentionSpec) -> LinearAttention:
    built = build_mixer(DIM, spec, layer=0, norm=NormSpec(eps=1e-5))
    holder = nn.Module()
    holder.mixer = built
    init_weights(holder, ModelShape(dim=DIM).build(vocab_size=8), seed=3)
    assert isinstance(built, LinearAttention)
    return built


def tokens() -> Tensor:
    return torch.randn(LENGTH, DIM, generator=torch.Generator().manual_seed(0))


def projected(layer: LinearAttention, x_TD: Tensor) -> list[Tensor]:
    spec = layer.spec
    widths = (spec.key_dim, spec.key_dim, spec.value_dim, spec.value_dim)
    parts = layer.qkv(x_TD).split(layer.sizes, dim=-1)
    return [part.unflatten(-1, (-1, width)) for part, width in zip(parts, widths, strict=True)]


def check(layer: LinearAttention, expected_TD: Tensor) -> None:
    got = layer(tokens(), StepContext.packed([LENGTH]))
    torch.testing.assert_close(got, expected_TD, atol=1e-5, rtol=1e-4)


def head_norm(values: Tensor, gate: Tensor, layer: LinearAttention) -> Tensor:
    norm = values * torch.rsqrt(values.square().mean(-1, keepdim=True) + 1e-5)
    return norm * layer.norm.weight * F.silu(gate)


def test_linear_attention_is_attention_with_a_kernel_instead_of_a_softmax():
    # Katharopoulos et al. 2020, equation 8, as a sum over all earlier tokens.
    layer = mixer(LinearAttentionSpec(4, 8, 12))
    q, k, v = projected(layer, tokens())[:3]
    phi_q, phi_k = F.elu(q) + 1, F.elu(k) + 1
    weights_NTT = torch.einsum("tnk,snk->nts", phi_q, phi_k).tril()
    weights_NTT = weights_NTT / weights_NTT.sum(-1, keepdim=True)
    mixed_TNV = torch.einsum("nts,snv->tnv", weights_NTT, v)
    check(layer, layer.out(mixed_TNV.flatten(1)))


def test_gated_linear_attention_forgets_by_a_gate_per_key_channel():
    # Yang et al. 2023, equation 3 and section 4.4.
    spec = LinearAttentionSpec(2, 8, 16, "identity", normalise=False, gate_rank=4, output_gate=True)
    layer = mixer(spec)
    x_TD = tokens()
    q, k, v, r = projected(layer, x_TD)
    alpha = (layer.forget(layer.forget_low(x_TD))).sigmoid().unflatten(-1, (2, 8)) ** (1 / 16)
    state, outputs = torch.zeros(2, 8, 16), []
    for t in range(LENGTH):
        state = alpha[t][:, :, None] * state + torch.einsum("nk,nv->nkv", k[t], v[t])
        outputs.append(torch.einsum("nk,nkv->nv", q[t], state) / 8**0.5)
    check(layer, layer.out(head_norm(torch.stack(outputs), r, layer).flatten(1)))


def test_retention_forgets_at_a_fixed_rate_per_head():
    # Sun et al. 2023, equations 5 and 8, without rotation.
    spec = LinearAttentionSpec(
        2, 8, 16, "identity", normalise=False, retention=True, output_gate=True
    )
    layer = mixer(spec)
    q, k, v, g = projected(layer, tokens())
    gamma_N = torch.tensor([1 - 2.0**-5, 1 - 2.0**-6])
    age_TT = (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)).clamp(min=0)
    decay_NTT = (gamma_N[:, None, None] ** age_TT).tril()
    mixed_TNV = torch.einsum("nts,snv->tnv", torch.einsum("tnk,snk->nts", q, k) * decay_NTT, v)
    check(layer, layer.out(head_norm(mixed_TNV / 8**0.5, g, layer).flatten(1)))


def test_lightning_attention_forgets_by_the_slopes_of_alibi():
    # Qin et al. 2024: a geometric series of slopes over the heads, times a factor of the layer.
    layer = mixer(LinearAttentionSpec(4, 8, 8, "identity", normalise=False, lightning=0.75))
    q, k, v = projected(layer, tokens())[:3]
    rates_N = 0.75 * alibi_slopes(4)
    age_TT = (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)).clamp(min=0)
    decay_NTT = torch.exp(-rates_N[:, None, None] * age_TT).tril()
    mixed_TNV = torch.einsum("nts,snv->tnv", torch.einsum("tnk,snk->nts", q, k) * decay_NTT, v)
    check(layer, layer.out((mixed_TNV / 8**0.5).flatten(1)))


def test_gated_norm_is_its_formula_in_both_orders():
    x, gate = torch.randn(5, 12), torch.randn(5, 12)
    weight = torch.linspace(0.5, 2, 12)
    after = GatedRMSNorm(12, 1e-5)
    before = GatedRMSNorm(12, 1e-5, num_groups=3, gate_first=True)
    for norm in (after, before):
        norm.weight.data.copy_(weight)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight * F.silu(gate)
    torch.testing.assert_close(after(x, gate), expected)
    gated = (x * F.silu(gate)).unflatten(-1, (3, 4))
    expected = gated / (gated.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(before(x, gate), expected.flatten(-2) * weight)
