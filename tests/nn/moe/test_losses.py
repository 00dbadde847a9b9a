"""Balancing losses at the uniform load, at collapse, and where their gradients push."""

from __future__ import annotations

import pytest
import torch

from weft.nn.context import StepContext
from weft.nn.moe.layer import MoE
from weft.nn.moe.losses import (
    balance_loss,
    chosen_load_loss,
    corrected_bias,
    imbalance,
    importance_loss,
    load_loss,
    quantile_bias,
    sequence_loss,
    z_loss,
)
from weft.spec import MLPSpec, MoESpec, RouterSpec

E, T = 8, 64


def uniform(top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return equal scores and choices that use every expert equally often."""
    ids = (torch.arange(T)[:, None] + torch.arange(top_k)) % E
    return torch.full((T, E), 1 / E), ids


def collapsed(top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores on the first K experts only, chosen by every token."""
    scores = torch.zeros(T, E)
    scores[:, :top_k] = 1 / top_k
    return scores, torch.arange(top_k).expand(T, top_k)


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_load_losses_at_uniform_and_at_collapse(top_k):
    even, all_on_k = uniform(top_k), collapsed(top_k)
    assert float(load_loss(*even, top_k)) == pytest.approx(1.0)
    assert float(load_loss(*all_on_k, top_k)) == pytest.approx(E / top_k)
    assert float(chosen_load_loss(*even)) == pytest.approx(top_k**2 / E)
    assert float(chosen_load_loss(*all_on_k)) == pytest.approx(E)


def test_importance_loss_is_the_squared_coefficient_of_variation():
    assert float(importance_loss(uniform(1)[0])) == pytest.approx(0.0, abs=1e-6)
    assert float(importance_loss(collapsed(1)[0])) == pytest.approx(E - 1)
    scores = torch.rand(T, E).softmax(-1)
    importance = scores.sum(0)
    variance = importance.var(correction=0)
    expected = variance / importance.mean() ** 2
    torch.testing.assert_close(importance_loss(scores), expected)
    # Var / E^2 of the summed scores is the same up to the square of tokens per expert squared.
    torch.testing.assert_close(variance / E**2, importance_loss(scores) * (T / E**2) ** 2)


@pytest.mark.parametrize("loss", ["load", "chosen", "importance", "sequence"])
def test_gradient_pushes_the_load_towards_uniform(loss):
    torch.manual_seed(0)
    logits = torch.randn(T, E) * 0.1
    logits[:, 0] += 2.0  # everybody likes expert 0
    start = imbalance(torch.bincount(logits.topk(2, -1).indices.flatten(), minlength=E))
    logits.requires_grad_()
    for _ in range(70):
        scores = logits.softmax(-1)
        ids = scores.topk(2, -1).indices
        value = {
            "load": lambda s=scores, i=ids: load_loss(s, i, 2),
            "chosen": lambda s=scores, i=ids: chosen_load_loss(s, i),
            "importance": lambda s=scores: importance_loss(s),
            "sequence": lambda s=scores, i=ids: sequence_loss(s, i, (T // 2, T // 2), 2),
        }[loss]()
        (gradient,) = torch.autograd.grad(value, logits)
        logits = (logits - 5.0 * gradient).detach().requires_grad_()
    end = imbalance(torch.bincount(ids.flatten(), minlength=E))
    assert float(scores.detach().mean(0)[0]) < 0.25
    # Importance evens the scores; the choices follow only as far as scores decide them.
    assert float(end) < (0.8 if loss == "importance" else 0.3) * float(start)


def test_sequence_loss_sees_what_the_batch_hides():
    """Two sequences that use one expert each are even together and collapsed apart."""
    scores = torch.zeros(8, 2)
    scores[:4, 0] = scores[4:, 1] = 1.0
    ids = scores.argmax(-1, keepdim=True)
    assert float(load_loss(scores, ids, 1)) == pytest.approx(1.0)
    assert float(sequence_loss(scores, ids, (4, 4), 1)) == pytest.approx(2.0)


def test_z_loss_is_the_mean_square_of_log_sum_exp():
    logits = torch.randn(5, 4)
    expected = logits.exp().sum(-1).log().square().mean()
    torch.testing.assert_close(z_loss(logits), expected)


def test_imbalance_is_zero_when_even_and_one_less_than_experts_at_collapse():
    assert float(imbalance(torch.full((E,), 7))) == 0.0
    assert float(imbalance(torch.tensor([40] + [0] * (E - 1)))) == pytest.approx(E - 1)


def test_correction_bias_moves_by_the_sign_of_the_missing_load():
    bias = corrected_bias(torch.zeros(4), torch.tensor([10, 2, 6, 6]), 0.001)
    assert bias.tolist() == pytest.approx([-0.001, 0.001, 0.0, 0.0])


def test_sign_rule_balances_a_skewed_router():
    torch.manual_seed(0)
    scores = torch.sigmoid(torch.randn(512, E) + torch.linspace(2, -2, E))
    bias = torch.zeros(E)
    start = imbalance(torch.bincount(scores.topk(2, -1).indices.flatten(), minlength=E))
    for _ in range(400):
        counts = torch.bincount((scores + bias).topk(2, -1).indices.flatten(), minlength=E)
        bias = corrected_bias(bias, counts, 0.005)
    assert float(imbalance(counts)) < 0.02 < 0.3 < float(start)


def test_quantile_bias_balances_in_a_few_rounds_without_a_rate():
    torch.manual_seed(0)
    scores = torch.sigmoid(torch.randn(2048, E) + torch.linspace(2, -2, E))
    bias = torch.zeros(E)
    for _ in range(12):
        bias = quantile_bias(scores, bias, 2)
    counts = torch.bincount((scores + bias).topk(2, -1).indices.flatten(), minlength=E)
    assert float(imbalance(counts)) < 0.02
    assert torch.equal(quantile_bias(scores, bias, E), torch.zeros(E))


@pytest.mark.parametrize("kind", ["load", "importance", "sequence"])
def test_a_layers_losses_are_those_its_spec_asks_for(kind):
    torch.manual_seed(0)
    router = RouterSpec(aux_loss=0.1, aux_kind=kind, z_loss=0.01)
    moe = MoE(16, MoESpec(E, 2, MLPSpec(8), router), layer=3)
    ctx = StepContext.packed([20, 12])
    moe(torch.randn(32, 16), ctx)
    record = ctx.routing[3]
    parts = {
        "load": lambda: load_loss(record.scores_TE, record.ids_TK, 2),
        "importance": lambda: importance_loss(record.scores_TE),
        "sequence": lambda: sequence_loss(record.scores_TE, record.ids_TK, (20, 12), 2),
    }
    expected = 0.1 * parts[kind]() + 0.01 * z_loss(record.logits_TE)
    total = balance_loss(record, ctx.lengths)
    torch.testing.assert_close(total, expected)
    total.backward()
    assert float(moe.router.weight.grad.abs().sum()) > 0
