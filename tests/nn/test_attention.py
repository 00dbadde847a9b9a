"""The attention module, feature by feature, against formulas written here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.nn.paged import assert_packed_equals_paged
from weft.core.errors import ConfigError
from weft.models.decoder import Decoder
from weft.nn.attention import Attention
from weft.nn.context import StepContext
from weft.nn.kv_cache import KVCache, bytes_per_block
from weft.nn.positions import alibi_slopes
from weft.ops import ScoreRule, packed_attention
from weft.spec import (
    AttentionSpec,
    LayerSpec,
    MLPSpec,
    ModelSpec,
    NormSpec,
    RelativeBiasSpec,
    RotarySpec,
)

DIM, LENGTH = 48, 13
PLAIN = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16)


def build(spec: AttentionSpec, norm: NormSpec = NormSpec()) -> Attention:  # noqa: B008
    torch.manual_seed(0)
    module = Attention(DIM, spec, layer=0, norm=norm)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def inputs() -> Tensor:
    return torch.randn(LENGTH, DIM, generator=torch.Generator().manual_seed(1))


def run(module: Attention, x_TD: Tensor) -> Tensor:
    with torch.no_grad():
        return module(x_TD, StepContext.packed([len(x_TD)]))


def decoder(*mixers: AttentionSpec) -> Decoder:
    layers = tuple(LayerSpec(mixer, MLPSpec(32)) for mixer in mixers)
    model = Decoder(ModelSpec("llama", 50, DIM, layers), seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def test_as_many_key_value_heads_as_query_heads_is_multi_head_attention() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(LENGTH, 4, 16) for _ in range(3))
    grouped = packed_attention(q, k, v, (LENGTH,), ScoreRule(0.25))
    for head in range(4):
        one = slice(head, head + 1)
        alone = packed_attention(q[:, one], k[:, one], v[:, one], (LENGTH,), ScoreRule(0.25))
        assert torch.equal(grouped[:, one], alone)


@pytest.mark.parametrize("num_kv_heads", [1, 2])
def test_sharing_key_value_heads_is_repeating_them(num_kv_heads: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(LENGTH, 4, 16)
    k, v = (torch.randn(LENGTH, num_kv_heads, 16) for _ in range(2))
    shared = packed_attention(q, k, v, (LENGTH,), ScoreRule(0.25))
    k, v = (t.repeat_interleave(4 // num_kv_heads, 1) for t in (k, v))
    assert torch.equal(shared, packed_attention(q, k, v, (LENGTH,), ScoreRule(0.25)))
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(0, 1) for t in (q, k, v)), is_causal=True, scale=0.25
    )
    torch.testing.assert_close(shared, expected.transpose(0, 1), atol=2e-6, rtol=2e-5)


def rows_of(module: Attention, x_TD: Tensor) -> tuple[Tensor, ...]:
    spec = module.spec
    parts = torch.nn.functional.linear(x_TD, module.qkv.weight, module.qkv.bias)
    return parts.split(spec.qkv_rows, dim=-1)


def attended(module: Attention, q_TC: Tensor, k_TC: Tensor, v_TC: Tensor) -> Tensor:
    """Attend to plain heads and project out."""
    q, k, v = (t.unflatten(-1, (-1, 16)) for t in (q_TC, k_TC, v_TC))
    mixed = packed_attention(q, k, v, (len(q),), ScoreRule(module.spec.softmax_scale))
    return torch.nn.functional.linear(mixed.flatten(1), module.out.weight, module.out.bias)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight


@pytest.mark.parametrize("kind", ["head", "all_heads"])
def test_queries_and_keys_are_normalised_by_head_or_all_at_once(kind: str) -> None:
    module = build(replace(PLAIN, rotary=None, qk_norm=kind, qkv_bias=True, out_bias=True))
    with torch.no_grad():
        q, k, v = rows_of(module, inputs())
        if kind == "head":
            q = rms(q.unflatten(-1, (4, 16)), module.q_norm.weight).flatten(1)
            k = rms(k.unflatten(-1, (2, 16)), module.k_norm.weight).flatten(1)
        else:
            q, k = rms(q, module.q_norm.weight), rms(k, module.k_norm.weight)
        torch.testing.assert_close(run(module, inputs()), attended(module, q, k, v))
    assert module.q_norm.weight.shape == ((16,) if kind == "head" else (64,))


def test_output_gate_multiplies_each_head_by_a_sigmoid_of_the_input() -> None:
    module = build(replace(PLAIN, rotary=None, output_gate=True))
    with torch.no_grad():
        query, k, v = rows_of(module, inputs())
        q, gate = (t.flatten(1) for t in query.unflatten(-1, (4, 32)).chunk(2, -1))
        mixed = packed_attention(
            *(t.unflatten(-1, (-1, 16)) for t in (q, k, v)), (LENGTH,), ScoreRule(0.25)
        )
        expected = (mixed.flatten(1) * gate.sigmoid()) @ module.out.weight.T
        torch.testing.assert_close(run(module, inputs()), expected)


def test_partial_rotary_leaves_the_rest_of_each_head_alone() -> None:
    """With 64 of 256 dimensions rotating, queries that only use the rest ignore positions."""
    spec = AttentionSpec(1, 1, 256, rotary=RotarySpec(dim=64))
    module = build(spec)
    with torch.no_grad():
        module.qkv.weight[:64] = 0.0
    x_TD = inputs()
    free = build(replace(spec, rotary=None))
    free.load_state_dict(module.state_dict())
    torch.testing.assert_close(run(module, x_TD), run(free, x_TD))
    with torch.no_grad():
        module.qkv.weight[:64] = 0.3
        free.qkv.weight[:64] = 0.3
    assert not torch.allclose(run(module, x_TD), run(free, x_TD))


def test_a_sink_of_minus_infinity_is_no_sink() -> None:
    module, plain = build(replace(PLAIN, sinks=True)), build(PLAIN)
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if k != "sinks"})
    with torch.no_grad():
        module.sinks.fill_(float("-inf"))
    torch.testing.assert_close(run(module, inputs()), run(plain, inputs()))


def test_sinks_are_trained_from_zero() -> None:
    model = decoder(replace(PLAIN, sinks=True))
    fresh = Decoder(model.spec, seed=0)
    assert fresh.layers[0].mixer.sinks.tolist() == [0.0] * 4
    fresh(torch.arange(5), StepContext.packed([5])).square().sum().backward()
    assert fresh.layers[0].mixer.sinks.grad.abs().min() > 0


@pytest.mark.parametrize("window", [1, 4, 9])
def test_a_token_sees_exactly_its_window(window: int) -> None:
    module, x_TD = build(replace(PLAIN, window=window)), inputs()
    before = run(module, x_TD)
    for position in range(LENGTH):
        changed = x_TD.clone()
        changed[position] += 1.0
        seen_T = (run(module, changed) != before).any(-1)
        expected = [position <= t < position + window for t in range(LENGTH)]
        assert seen_T.tolist() == expected


def test_without_causality_every_token_sees_every_other() -> None:
    module, x_TD = build(replace(PLAIN, causal=False)), inputs()
    changed = x_TD.clone()
    changed[-1] += 1.0
    assert (run(module, changed) != run(module, x_TD)).any(-1).all()


def test_alibi_slopes_are_the_published_ones() -> None:
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    torch.testing.assert_close(
        alibi_slopes(12)[8:], torch.tensor([2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5])
    )
    assert alibi_slopes(1).tolist() == [2.0**-8]


@pytest.mark.parametrize("num_heads", [2, 8, 12])
def test_stretched_slopes_keep_the_nearest_head_and_divide_the_farthest(num_heads: int) -> None:
    """NTK-aware scaling, where the base of a geometric series is what is stretched."""
    plain = alibi_slopes(num_heads)
    stretched = alibi_slopes(num_heads, stretch=4.0)
    near, far = plain.argmax(), plain.argmin()
    torch.testing.assert_close(stretched[near], plain[near])
    torch.testing.assert_close(stretched[far], plain[far] / 4)
    assert torch.equal(plain.argsort(), stretched.argsort())
    assert torch.equal(alibi_slopes(num_heads, stretch=1.0), plain)
    if num_heads == 8:
        series = (stretched[1:] / stretched[:-1]).unique()
        torch.testing.assert_close(series, torch.full_like(series, 0.5 * 4 ** (-1 / 7)))
    assert alibi_slopes(1, stretch=4.0).tolist() == [2.0**-10]


def test_stretched_slopes_reach_the_scores() -> None:
    plain = AttentionSpec(4, 4, 8, rotary=None, alibi=True)
    context = StepContext.packed([LENGTH])
    near, far = (
        build(spec)(inputs(), context) for spec in (plain, replace(plain, alibi_stretch=8.0))
    )
    assert torch.equal(near[0], far[0]), "a token sees itself at distance 0"
    assert not torch.allclose(near[5:], far[5:])
    with pytest.raises(ConfigError, match=r"alibi_stretch is 0\.5"):
        replace(plain, alibi_stretch=0.5)


def test_alibi_takes_a_slope_per_position_of_distance() -> None:
    module = build(replace(PLAIN, rotary=None, alibi=True))
    with torch.no_grad():
        q, k, v = (t.unflatten(-1, (-1, 16)) for t in rows_of(module, inputs()))
        k, v = (t.repeat_interleave(2, 1) for t in (k, v))
        scores = torch.einsum("tnh,snh->nts", q, k) * 0.25
        distance = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
        scores = scores - torch.tensor([0.25, 0.0625, 0.015625, 0.00390625])[:, None, None] * (
            distance
        )
        weights = scores.masked_fill(distance < 0, float("-inf")).softmax(-1)
        expected = torch.einsum("nts,snh->tnh", weights, v).flatten(1) @ module.out.weight.T
        torch.testing.assert_close(run(module, inputs()), expected)


SHARED = (PLAIN, replace(PLAIN, kv_source=0)) * 2
SHARED = (*SHARED[:3], replace(PLAIN, kv_source=2))


def test_sharing_between_two_layers_halves_the_cache() -> None:
    shared, own = decoder(*SHARED).spec, decoder(*(PLAIN,) * 4).spec
    assert 2 * shared.cache_values_per_token == own.cache_values_per_token
    sizes = [bytes_per_block(spec, 4, torch.float32) for spec in (shared, own)]
    assert 2 * sizes[0] == sizes[1]
    assert [len(kept) for kept in KVCache(shared, num_blocks=1, block_size=4).tokens] == [
        2, 0, 2, 0,
    ]  # fmt: skip
    assert shared.kv_sources == {0, 2}


def test_a_sharing_layer_attends_to_the_keys_of_its_source() -> None:
    """It gives what a layer with its own projections gives, fed so that they are the same."""
    giver, taker = build(PLAIN), build(replace(PLAIN, kv_source=0))
    taker.layer = 1
    x_TD = inputs()
    with torch.no_grad():
        context = StepContext.packed([LENGTH], keep_keys=frozenset({0}))
        giver(x_TD, context)
        own = build(PLAIN)
        own.qkv.weight.copy_(torch.cat([taker.qkv.weight, giver.qkv.weight[64:]]))
        own.out.load_state_dict(taker.out.state_dict())
        torch.testing.assert_close(taker(x_TD, context), run(own, x_TD))


FEATURES = {
    "bias": replace(PLAIN, qkv_bias=True, out_bias=True),
    "window": replace(PLAIN, window=5),
    "softcap": replace(PLAIN, softcap=2.0),
    "sinks": replace(PLAIN, sinks=True, window=6),
    "gate": replace(PLAIN, output_gate=True, qk_norm="head"),
    "all_heads": replace(PLAIN, qk_norm="all_heads"),
    "alibi": replace(PLAIN, rotary=None, alibi=True),
    "relative": replace(PLAIN, rotary=None, scale=1.0, relative=RelativeBiasSpec(8, 16)),
    "interleaved": replace(PLAIN, rotary=RotarySpec(layout="interleaved", dim=8)),
    "sections": replace(PLAIN, rotary=RotarySpec(sections=(4, 2, 2))),
}


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_training_and_engine_agree(name: str) -> None:
    model = decoder(PLAIN, FEATURES[name])
    assert_packed_equals_paged(model, vocab_size=50, atol=1e-5)


def test_training_and_engine_agree_when_layers_share_keys() -> None:
    assert_packed_equals_paged(decoder(*SHARED), vocab_size=50, atol=1e-5)
