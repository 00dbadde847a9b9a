"""The layer against its definition, and what it leaves in the context."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.nn.moe.definition import dense_loop, small
from weft.core.errors import ConfigError
from weft.nn.context import StepContext
from weft.nn.moe.choice import drop_overflow
from weft.nn.moe.experts import Experts
from weft.nn.moe.layer import build_moe
from weft.nn.moe.router import Router
from weft.nn.moe.soft import SoftMoE, dispatch_and_combine
from weft.ops import pad_rows
from weft.spec import MLPSpec, MoESpec, RouterSpec

EXPERTS = {
    "swiglu": MLPSpec(12),
    "swiglu-bias": MLPSpec(12, bias=True),
    "relu": MLPSpec(12, activation="relu", gated=False),
    "relu-bias": MLPSpec(12, activation="relu", gated=False, bias=True),
}


@pytest.mark.parametrize("expert", EXPERTS.values(), ids=EXPERTS)
@pytest.mark.parametrize("load", ["routed", "one expert", "two of eight"])
def test_dropless_equals_the_dense_loop_for_any_load(expert, load):
    moe = small(expert=expert)
    x = torch.randn(40, 16, requires_grad=True)
    router = moe.router(x)
    ids = router.ids_TK
    if load != "routed":
        ids = torch.tensor([[3, 5] if load == "two of eight" else [3, 8]]).expand(40, 2)
    weights = router.weights_TK * (ids < 8)
    actual = moe.experts(x, ids, router.weights_TK * (ids < 8), complete=load == "routed")
    expected = dense_loop(moe, x, ids, weights)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)
    leaves = [x, *moe.parameters()]
    upstream = torch.randn_like(expected)
    grads = [
        torch.autograd.grad(out, leaves, upstream, retain_graph=True, allow_unused=True)
        for out in (actual, expected)
    ]
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_four_experts_and_a_gate_have_4160_parameters():
    expert = MLPSpec(64, activation="relu", gated=False, bias=True)
    router = Router(10, MoESpec(4, 2, expert, RouterSpec(bias=True)), layer=0)
    experts = Experts(4, 10, expert, out_dim=5)
    counts = [p.numel() for part in (router, experts) for p in part.parameters()]
    assert sum(counts) == 4160


def test_all_tokens_are_kept_while_capacity_covers_the_load():
    moe = small(8, 3, capacity_factor=4 / 3)
    assert moe.spec.capacity(64) == 32
    x, ctx = torch.randn(64, 16), StepContext.packed([64])
    y = moe(x, ctx)
    record = ctx.routing[0]
    assert int(record.counts_E.max()) <= 32, "the example must fit"
    expected = dense_loop(moe, x, record.ids_TK, record.weights_TK)
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-5)


def test_experts_beyond_their_capacity_refuse_later_choices_and_tokens():
    ids = torch.tensor([[0, 1], [0, 1], [1, 0], [0, 2]])
    assert drop_overflow(ids, 3, 2).tolist() == [[0, 1], [0, 3], [1, 3], [3, 2]]
    moe = small(8, 2, capacity_factor=0.5)
    x, ctx = torch.randn(64, 16), StepContext.packed([64])
    y = moe(x, ctx)
    record = ctx.routing[0]
    ids = drop_overflow(record.ids_TK, 8, 8)
    assert int((ids == 8).sum()) > 0
    expected = dense_loop(moe, x, ids, record.weights_TK)
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-5)


def test_shared_expert_with_and_without_gate():
    for gated in (False, True):
        moe = small(shared=MLPSpec(20), shared_gate=gated)
        x, ctx = torch.randn(9, 16), StepContext.packed([9])
        y = moe(x, ctx)
        record = ctx.routing[0]
        share = torch.sigmoid(F.linear(x, moe.shared_gate.weight)) if gated else 1.0
        expected = dense_loop(moe, x, record.ids_TK, record.weights_TK) + share * moe.shared(x)
        torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-5)


def test_latent_experts_work_between_projections():
    moe = small(latent_dim=6)
    assert moe.experts.gate_up.shape == (8, 24, 6)
    assert moe.experts.down.shape == (8, 6, 12)
    assert moe.router.weight.shape == (8, 16), "the router sees the token itself"
    x, ctx = torch.randn(9, 16), StepContext.packed([9])
    y = moe(x, ctx)
    record = ctx.routing[0]
    inner = dense_loop(moe, F.linear(x, moe.latent_down.weight), record.ids_TK, record.weights_TK)
    torch.testing.assert_close(y, F.linear(inner, moe.latent_up.weight), atol=1e-6, rtol=1e-5)


def test_a_latent_mixture_at_the_published_size_has_its_shapes():
    """Kimi K3's card: width 7168, latent 3584, 16 of 896 experts of 3072; 2.8T, 92 such layers."""
    spec = MoESpec(896, 16, MLPSpec(3072), latent_dim=3584)
    moe = build_moe(7168, spec, layer=0, device="meta")
    shapes = {name: tuple(p.shape) for name, p in moe.named_parameters()}
    assert shapes == {
        "router.weight": (896, 7168),
        "experts.gate_up": (896, 6144, 3584),
        "experts.down": (896, 3584, 3072),
        "latent_down.weight": (3584, 7168),
        "latent_up.weight": (7168, 3584),
    }
    total = 92 * sum(p.numel() for p in moe.parameters())
    assert total == pytest.approx(2.8e12, rel=0.03)  # attention and embedding come on top


def test_a_row_has_the_same_bits_in_any_batch():
    moe = small(shared=MLPSpec(12), shared_gate=True)
    x = torch.randn(200, 16)
    with torch.inference_mode():
        many = moe(x, StepContext.packed([200]))
        for start, count in ((0, 1), (7, 2), (50, 3), (90, 40)):
            rows = pad_rows(x[start : start + count])
            few = moe(rows, StepContext.packed([len(rows)]))[:count]
            assert torch.equal(few, many[start : start + count])


def test_a_recorded_routing_can_be_replayed():
    moe, x = small(), torch.randn(12, 16)
    first = StepContext.packed([12])
    y = moe(x, first)
    other = small(router=RouterSpec())
    with torch.no_grad():
        for ours, theirs in zip(other.parameters(), moe.parameters(), strict=True):
            ours.copy_(theirs)
        other.router.weight.neg_()
    free, replay = StepContext.packed([12]), StepContext.packed([12])
    other(x, free)
    assert not torch.equal(free.routing[0].ids_TK, first.routing[0].ids_TK)
    replay.given_experts = {0: first.routing[0].ids_TK}
    replayed = other(x, replay)
    record = replay.routing[0]
    assert torch.equal(record.ids_TK, first.routing[0].ids_TK)
    expected = record.scores_TE.gather(1, record.ids_TK)
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(record.weights_TK, expected)
    assert not torch.equal(replayed, y), "weights are the new router's"


def test_nothing_is_counted_before_somebody_asks():
    moe, ctx = small(), StepContext.packed([6])
    moe(torch.randn(6, 16), ctx)
    record = ctx.routing[0]
    assert "counts_E" not in vars(record)
    assert int(record.counts_E.sum()) == 12


def test_bfloat16_weights_are_routed_in_float32():
    moe = small().to(torch.bfloat16)
    ctx = StepContext.packed([6])
    y = moe(torch.randn(6, 16).bfloat16(), ctx)
    assert y.dtype == torch.bfloat16
    assert ctx.routing[0].logits_TE.dtype == ctx.routing[0].weights_TK.dtype == torch.float32


def test_soft_slots_have_weights_that_sum_to_one():
    dispatch, combine = dispatch_and_combine(torch.randn(11, 6))
    torch.testing.assert_close(dispatch.sum(0), torch.ones(6))
    torch.testing.assert_close(combine.sum(1), torch.ones(11))


def test_soft_mixture_equals_its_definition_and_keeps_sequences_apart():
    torch.manual_seed(0)
    spec = MoESpec(3, 1, MLPSpec(12), RouterSpec(kind="soft", num_slots=2))
    moe = build_moe(16, spec, layer=0)
    assert isinstance(moe, SoftMoE)
    x = torch.randn(11, 16)
    y = moe(x, StepContext.packed([7, 4]))
    for rows, out in zip(x.split((7, 4)), y.split((7, 4)), strict=True):
        logits = rows @ moe.router.weight.t()
        slots = logits.softmax(0).t() @ rows
        gate, up = torch.einsum("epd,efd->epf", slots.view(3, 2, 16), moe.experts.gate_up).chunk(
            2, -1
        )
        results = torch.einsum("epf,edf->epd", F.silu(gate) * up, moe.experts.down).flatten(0, 1)
        torch.testing.assert_close(out, logits.softmax(1) @ results, atol=1e-6, rtol=1e-5)


def test_impossible_mixtures_are_refused():
    with pytest.raises(ConfigError, match="top_k is 9 of 8"):
        MoESpec(8, 9, MLPSpec(4))
    with pytest.raises(ConfigError, match="fewer than the 3"):
        MoESpec(8, 3, MLPSpec(4), RouterSpec(num_groups=4, num_kept_groups=1))
    with pytest.raises(ConfigError, match="switch routing uses 1"):
        MoESpec(8, 2, MLPSpec(4), RouterSpec(kind="switch"))
    with pytest.raises(ConfigError, match="no correction bias"):
        RouterSpec(bias_rate=0.1)
