"""The clipped policy-gradient loss as a pure function. M action tokens, S samples.

Only tokens the policy drew are here, flat; ``sample_M`` says whose each is. The loss is returned
as a sum and a count and is never divided: the trainer divides once, over all micro-batches and
devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from weft.align.kl import kl_per_token
from weft.core.errors import ConfigError

RatioLevel = Literal["token", "sequence"]
Aggregation = Literal["token", "sequence", "fixed"]


@dataclass(frozen=True)
class PolicyLossConfig:
    """The choices that make a policy-gradient loss.

    Attributes:
        ratio: Importance ratio per token (PPO), or per sequence: the geometric mean of its tokens'
            ratios (GSPO, Zheng et al. 2025, arXiv:2507.18071).
        clip_low: Ratios below 1 - clip_low get no gradient; none does not clip.
        clip_high: Ratios above 1 + clip_high get no gradient; larger than clip_low is "clip
            higher" (DAPO, Yu et al. 2025, arXiv:2503.14476). None does not clip.
        dual_clip: With negative advantage the loss is at most this times its size (Ye et al. 2020,
            arXiv:1912.09729); none does not.
        aggregation: Divide by the number of tokens (token), average within each sample first and
            divide by the number of samples (sequence), or divide by samples times a fixed length
            (fixed, Dr. GRPO).
    """

    ratio: RatioLevel = "token"
    clip_low: float | None = 0.2
    clip_high: float | None = 0.2
    dual_clip: float | None = None
    aggregation: Aggregation = "token"

    def __post_init__(self) -> None:
        if self.clip_low is not None and not 0.0 < self.clip_low < 1.0:
            raise ConfigError(f"clip_low is {self.clip_low}; it must be between 0 and 1")
        if self.clip_high is not None and self.clip_high <= 0.0:
            raise ConfigError(f"clip_high is {self.clip_high}; it must be above 0")
        if self.dual_clip is not None and self.dual_clip <= 1.0:
            raise ConfigError(f"dual_clip is {self.dual_clip}; it must be above 1")


class PolicyLoss(NamedTuple):
    """One micro-batch's share of the loss.

    Attributes:
        loss_sum: 0-d, differentiable; minimising it raises the probability of good tokens.
        count: What the total of all shares is divided by; 0-d.
        stats: Sums over tokens for the metrics: clipped tokens, and KL(old || new) by k3.
    """

    loss_sum: Tensor
    count: Tensor
    stats: dict[str, Tensor]


def policy_loss(
    log_probs_M: Tensor,
    old_log_probs_M: Tensor,
    advantages_M: Tensor,
    sample_M: Tensor,
    num_samples: int,
    config: PolicyLossConfig,
    *,
    weights_M: Tensor | None = None,
    fixed_length: int = 1,
) -> PolicyLoss:
    """Return the clipped surrogate -min(r A, clip(r) A) as (sum, count, stats).

    Schulman et al. 2017, arXiv:1707.06347, eq. 7, with the choices of ``config``.

    Args:
        log_probs_M: Under the current policy; the only differentiable input.
        old_log_probs_M: Under the policy before this round of updates.
        advantages_M: Advantage of each token.
        sample_M: Index of each token's sample, 0 .. S - 1.
        num_samples: S.
        config: The choices.
        weights_M: Off-policy corrections; none is 1 for every token.
        fixed_length: Divisor per sample of the aggregation "fixed".
    """
    log_ratio_M = log_probs_M - old_log_probs_M
    lengths_S = torch.bincount(sample_M, minlength=num_samples).to(log_probs_M.dtype)
    if config.ratio == "sequence":
        log_ratio_M = _sequence_mean(log_ratio_M, sample_M, lengths_S)
    ratio_M = log_ratio_M.exp()
    surrogate_M, clipped_M = _clipped(ratio_M, advantages_M, config)
    loss_M = -surrogate_M if weights_M is None else -surrogate_M * weights_M
    loss_sum, count = aggregate(loss_M, sample_M, lengths_S, config.aggregation, fixed_length)
    old_kl = kl_per_token(old_log_probs_M, log_probs_M.detach()).sum()
    stats = {"num_clipped": clipped_M.sum().float(), "old_kl_sum": old_kl}
    return PolicyLoss(loss_sum, count, stats)


def aggregate(
    values_M: Tensor,
    sample_M: Tensor,
    lengths_S: Tensor,
    aggregation: Aggregation,
    fixed_length: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return (sum, count) whose quotient over all micro-batches is the wanted mean.

    Args:
        values_M: One value per action token.
        sample_M: Whose each is.
        lengths_S: Action tokens of each sample.
        aggregation: Which mean.
        fixed_length: Divisor per sample of "fixed".
    """
    num_samples = (lengths_S > 0).sum().to(values_M.dtype)
    if aggregation == "token":
        return values_M.sum(), lengths_S.sum()
    if aggregation == "sequence":
        return (values_M / lengths_S[sample_M]).sum(), num_samples
    return values_M.sum(), num_samples * fixed_length


def _sequence_mean(values_M: Tensor, sample_M: Tensor, lengths_S: Tensor) -> Tensor:
    """Return each sample's mean at each of its tokens, [M]."""
    sums_S = torch.zeros_like(lengths_S).index_add(0, sample_M, values_M)
    return (sums_S / lengths_S.clamp(min=1))[sample_M]


def _clipped(
    ratio_M: Tensor, advantages_M: Tensor, config: PolicyLossConfig
) -> tuple[Tensor, Tensor]:
    """Return the surrogate of each token and whether a clip took its gradient away."""
    low = None if config.clip_low is None else 1.0 - config.clip_low
    high = None if config.clip_high is None else 1.0 + config.clip_high
    plain_M = ratio_M * advantages_M
    if low is None and high is None:
        bounded_M = plain_M
    else:
        bounded_M = ratio_M.clamp(min=low, max=high) * advantages_M
    surrogate_M = torch.minimum(plain_M, bounded_M)
    clipped_M = bounded_M < plain_M
    if config.dual_clip is not None:
        floor_M = config.dual_clip * advantages_M
        dual_M = (advantages_M < 0) & (surrogate_M < floor_M)
        surrogate_M = torch.where(dual_M, floor_M, surrogate_M)
        clipped_M = clipped_M | dual_M
    return surrogate_M, clipped_M
