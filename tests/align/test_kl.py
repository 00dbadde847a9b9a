from __future__ import annotations

import math

import pytest
import torch

from weft.align.kl import kl_per_token

P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)


def test_values_at_one_token():
    # r = q / p = 1/2: k1 = ln 2, k2 = ln(2)^2 / 2, k3 = 1/2 - 1 + ln 2.
    p, q = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    expected = {"k1": math.log(2), "k2": math.log(2) ** 2 / 2, "k3": math.log(2) - 0.5}
    for estimator, value in expected.items():
        assert kl_per_token(p, q, estimator).item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_expectation_over_p_is_the_divergence(estimator):
    exact = (P * (P / Q).log()).sum()
    estimate = (P * kl_per_token(P.log(), Q.log(), estimator)).sum()
    torch.testing.assert_close(estimate, exact)


def test_k2_is_close_for_close_distributions():
    near = P + torch.tensor([0.01, -0.01, 0.0], dtype=torch.float64)
    exact = (P * (P / near).log()).sum()
    estimate = (P * kl_per_token(P.log(), near.log(), "k2")).sum()
    assert float(abs(estimate - exact) / exact) < 0.05


def test_k3_is_never_negative_and_zero_at_equality():
    log_p, log_q = torch.randn(100) - 2, torch.randn(100) - 2
    assert (kl_per_token(log_p, log_q, "k3") >= 0).all()
    for estimator in ("k1", "k2", "k3"):
        assert not kl_per_token(log_p, log_p, estimator).any()
