"""Every way to choose experts against its paper's definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.nn.moe.definition import expert_output, small
from weft.nn.context import StepContext
from weft.nn.moe.choice import expert_choice, hash_experts, random_second, top_experts
from weft.nn.moe.router import Router
from weft.spec import MLPSpec, MoESpec, RouterSpec


def routed(router: RouterSpec, top_k: int = 2, *, training: bool = False, num_tokens: int = 30):
    torch.manual_seed(0)
    module = Router(16, MoESpec(8, top_k, MLPSpec(4), router), layer=0).train(training)
    x = torch.randn(num_tokens, 16)
    return module, x, module(x)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrt_softplus"])
def test_weights_are_the_best_scores(score, normalise):
    router, x, routing = routed(RouterSpec(score=score, normalise=normalise, weight_scale=2.5), 3)
    logits = x @ router.weight.t()
    scores = {
        "softmax": lambda: logits.softmax(-1),
        "sigmoid": logits.sigmoid,
        "sqrt_softplus": lambda: F.softplus(logits).sqrt(),
    }[score]()
    best, ids = scores.topk(3, -1)
    best = best / best.sum(-1, keepdim=True) if normalise else best
    assert torch.equal(routing.ids_TK, ids)
    torch.testing.assert_close(routing.weights_TK, 2.5 * best)


def test_softmax_over_the_chosen_only():
    router, x, routing = routed(RouterSpec(score="softmax_chosen", bias=True), 3)
    best, ids = (x @ router.weight.t()).topk(3, -1)
    assert torch.equal(routing.ids_TK, ids)
    torch.testing.assert_close(routing.weights_TK, best.softmax(-1))


@pytest.mark.parametrize("group_score", ["max", "top2_sum"])
def test_choice_stays_inside_the_best_groups(group_score):
    spec = RouterSpec(num_groups=4, num_kept_groups=2, group_score=group_score)
    scores = torch.rand(50, 8)
    ids = top_experts(scores, 3, spec)
    for row, chosen in zip(scores, ids, strict=True):
        groups = row.view(4, 2)
        rank = groups.max(-1).values if group_score == "max" else groups.sum(-1)
        kept = set(rank.topk(2).indices.tolist())
        allowed = [e for e in range(8) if e // 2 in kept]
        best = sorted(allowed, key=lambda e: -float(row[e]))[:3]
        assert chosen.tolist() == best


def test_correction_bias_steers_the_choice_and_not_the_weight():
    spec = RouterSpec(score="sigmoid", correction_bias=True, normalise=False)
    router, x, before = routed(spec)
    router.correction_bias[5] += 100.0
    after = router(x)
    assert torch.equal(after.ids_TK[:, 0], torch.full((30,), 5))
    torch.testing.assert_close(after.weights_TK[:, 0], before.scores_TE[:, 5])
    assert "correction_bias" in router.state_dict()
    assert all(name != "correction_bias" for name, _ in router.named_parameters())


def test_switch_keeps_the_probability_as_weight():
    _, _, routing = routed(RouterSpec(kind="switch"), 1)
    torch.testing.assert_close(routing.weights_TK[:, 0], routing.scores_TE.max(-1).values)


def test_gshard_drops_second_experts_with_the_right_probability():
    torch.manual_seed(0)
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5]]).repeat_interleave(4000, 0)
    ids = random_second(torch.tensor([[0, 1]]).expand(12_000, 2), scores)
    kept = (ids[:, 1] == 1).view(3, 4000).double().mean(1)
    torch.testing.assert_close(kept, torch.tensor([0.2, 0.4, 1.0]).double(), atol=0.03, rtol=0)
    spec = RouterSpec(kind="gshard")
    _, _, evaluated = routed(spec)
    assert int(evaluated.ids_TK.max()) < 8, "evaluation keeps every second expert"
    _, _, trained = routed(spec, training=True, num_tokens=200)
    dropped = trained.ids_TK[:, 1] == 8
    assert bool(dropped.any())
    assert not trained.weights_TK[dropped, 1].any()
    torch.testing.assert_close(trained.weights_TK.sum(-1), torch.ones(200))


def test_gshard_layer_computes_without_the_dropped_ones():
    moe = small(router=RouterSpec(kind="gshard")).train()
    x, ctx = torch.randn(64, 16), StepContext.packed([64])
    y = moe(x, ctx)
    record = ctx.routing[0]
    expected = sum(
        (record.weights_TK * (record.ids_TK == e)).sum(1)[:, None] * expert_output(moe, e, x)
        for e in range(8)
    )
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "learnt", "jitter"])
def test_noise_is_for_training_only(kind):
    spec = RouterSpec(noise=0.5, noise_kind=kind)
    router, x, quiet = routed(spec)
    torch.testing.assert_close(quiet.logits_TE, x @ router.weight.t())
    noisy = router.train()(x)
    assert not torch.allclose(noisy.logits_TE, quiet.logits_TE)


def test_jitter_multiplies_inputs_by_at_most_its_share():
    """Switch Transformers: each input number times a draw from [1 - eps, 1 + eps]."""
    spec = RouterSpec(noise=0.1, noise_kind="jitter")
    router = Router(8, MoESpec(8, 2, MLPSpec(4), spec), layer=0).train()
    with torch.no_grad():
        router.weight.copy_(torch.eye(8))  # logits are the multiplied inputs
        factors = router(torch.full((5000, 8), 4.0)).logits_TE / 4.0
    assert float(factors.min()) >= 0.9 - 1e-6
    assert float(factors.max()) <= 1.1 + 1e-6
    assert float(factors.mean()) == pytest.approx(1.0, abs=1e-3)
    assert float(factors.std()) == pytest.approx(0.1 / 3**0.5, rel=0.02)


def test_learnt_noise_scales_with_its_own_projection():
    router, x, _ = routed(RouterSpec(noise=1.0, noise_kind="learnt"), training=True)
    with torch.no_grad():
        router.noise_weight.normal_()
    torch.manual_seed(3)
    actual = router.logits(x)
    torch.manual_seed(3)
    clean = x @ router.weight.t()
    expected = clean + torch.randn_like(clean) * F.softplus(x @ router.noise_weight.t())
    torch.testing.assert_close(actual, expected)


def test_expert_choice_is_perfectly_balanced():
    moe = small(router=RouterSpec(kind="expert_choice"))
    x = torch.randn(40, 16)
    scores = (x @ moe.router.weight.detach().t()).softmax(-1)
    tokens, weights = expert_choice(scores, 10)
    assert tokens.shape == (8, 10)
    expected = torch.zeros(40, 16)
    for expert in range(8):
        best = sorted(range(40), key=lambda t, e=expert: -float(scores[t, e]))[:10]
        assert set(tokens[expert].tolist()) == set(best)
        rows = expert_output(moe, expert, x[tokens[expert]]) * weights[expert][:, None]
        expected.index_add_(0, tokens[expert], rows)
    torch.testing.assert_close(moe(x, StepContext.packed([40])), expected, atol=1e-6, rtol=1e-5)


def test_hashed_tokens_always_meet_the_same_distinct_experts():
    tokens = torch.arange(20_000)
    ids = hash_experts(tokens, 8, 2, layer=0)
    assert bool((ids[:, 0] != ids[:, 1]).all())
    assert torch.equal(ids[[7, 7]], hash_experts(torch.tensor([7, 7]), 8, 2, layer=0))
    assert not torch.equal(ids, hash_experts(tokens, 8, 2, layer=1))
    share = torch.bincount(ids[:, 0], minlength=8).double() / 20_000
    torch.testing.assert_close(share, torch.full((8,), 1 / 8).double(), atol=0.01, rtol=0)


def test_hash_routing_has_no_router_weights_and_equal_shares():
    moe = small(router=RouterSpec(kind="hash"))
    assert not [name for name, _ in moe.named_parameters() if "router" in name]
    ctx = StepContext.packed([5])
    ctx.tokens_T = torch.tensor([3, 1, 3, 2, 9])
    moe(torch.randn(5, 16), ctx)
    record = ctx.routing[0]
    assert torch.equal(record.ids_TK[0], record.ids_TK[2])
    torch.testing.assert_close(record.weights_TK, torch.full((5, 2), 0.5))
