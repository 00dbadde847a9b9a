"""The policy loss written again in float64 numpy, token by token, straight from the papers."""

from __future__ import annotations

import math

import numpy as np

from weft.align.policy_loss import PolicyLossConfig


def policy_loss_twin(
    new: list[list[float]],
    old: list[list[float]],
    advantages: list[float],
    config: PolicyLossConfig,
    *,
    weights: list[list[float]] | None = None,
    fixed_length: int = 1,
) -> tuple[float, float]:
    """Return (sum, count); ``new[i][t]`` is the log-probability of token t of sample i."""
    per_sample = []
    for i, advantage in enumerate(advantages):
        log_ratios = [a - b for a, b in zip(new[i], old[i], strict=True)]
        if config.ratio == "sequence":
            log_ratios = [float(np.mean(log_ratios))] * len(log_ratios)
        terms = [_token(math.exp(r), advantage, config) for r in log_ratios]
        if weights is not None:
            terms = [w * term for w, term in zip(weights[i], terms, strict=True)]
        per_sample.append(terms)
    if config.aggregation == "sequence":
        return sum(float(np.mean(terms)) for terms in per_sample), float(len(per_sample))
    total = sum(sum(terms) for terms in per_sample)
    if config.aggregation == "token":
        return total, float(sum(len(terms) for terms in per_sample))
    return total, float(len(per_sample) * fixed_length)


def _token(ratio: float, advantage: float, config: PolicyLossConfig) -> float:
    low = -math.inf if config.clip_low is None else 1 - config.clip_low
    high = math.inf if config.clip_high is None else 1 + config.clip_high
    bounded = min(max(ratio, low), high)
    value = min(ratio * advantage, bounded * advantage)
    if config.dual_clip is not None and advantage < 0:
        value = max(value, config.dual_clip * advantage)
    return -value
