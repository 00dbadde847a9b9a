from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from weft.train.smoothing import smoothing_sum


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_loss_and_gradients_equal_those_of_smoothed_targets(strength: float):
    torch.manual_seed(0)
    hidden_TD = torch.randn(9, 6, requires_grad=True)
    weight_VD = torch.randn(11, 6, requires_grad=True)
    labels_T = torch.randint(11, (9,))
    labels_T[[2, 5]] = -100
    logits_TV = hidden_TD @ weight_VD.T
    expected = F.cross_entropy(logits_TV, labels_T, reduction="sum", label_smoothing=strength)
    plain = F.cross_entropy(logits_TV, labels_T, reduction="sum")
    actual = plain + strength * smoothing_sum(hidden_TD, weight_VD, labels_T)
    torch.testing.assert_close(actual, expected)
    wanted = torch.autograd.grad(expected, (hidden_TD, weight_VD), retain_graph=True)
    for got, want in zip(torch.autograd.grad(actual, (hidden_TD, weight_VD)), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_batch_without_labels_adds_nothing():
    labels_T = torch.full((3,), -100)
    assert float(smoothing_sum(torch.randn(3, 4), torch.randn(5, 4), labels_T)) == 0.0
