"""Per-token estimators of KL(p || q) from tokens drawn from p.

Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html). With r = q / p:
k1 = -log r is unbiased with high variance, k2 = (log r)^2 / 2 is biased with low variance,
k3 = r - 1 - log r is unbiased and never negative.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]


def kl_per_token(log_p_M: Tensor, log_q_M: Tensor, estimator: KLEstimator = "k3") -> Tensor:
    """Return the estimate of KL(p || q) at each drawn token, [M].

    Args:
        log_p_M: Log-probabilities under the distribution that drew the tokens.
        log_q_M: Log-probabilities of the same tokens under the other one.
        estimator: Which formula.
    """
    log_ratio_M = log_q_M - log_p_M
    if estimator == "k1":
        return -log_ratio_M
    if estimator == "k2":
        return log_ratio_M.square() / 2
    # expm1 keeps the digits that r - 1 would lose near r = 1.
    return torch.expm1(log_ratio_M) - log_ratio_M
