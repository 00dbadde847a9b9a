"""How far the trainer's log-probabilities are from the sampler's, and corrections for it.

The sampler draws from mu, the trainer differentiates pi. They are the same weights, but kernels,
precision, quantization or stale versions make mu differ from pi, and the gradient is then biased.
In shared float32 mode the difference is rounding only, and exactly 0 where the engine is
deterministic and both sides run the C kernels. M action tokens.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from weft.align.kl import kl_per_token

Correction = Literal["none", "tis", "mis"]

# Ratios pi / mu outside of this are counted, and masked by "mis".
BAND = (0.5, 2.0)


@dataclass(frozen=True)
class Mismatch:
    """What is logged at every step.

    Attributes:
        num_tokens: Action tokens compared.
        max_abs: Largest absolute difference of log-probabilities.
        mean_abs: Mean absolute difference.
        k1: Mean of log mu - log pi, an estimate of KL(mu || pi).
        k3: The same KL by the estimator that is never negative.
        ess: Effective sample size of the weights pi / mu as a share of the tokens,
            (sum w)^2 / (M sum w^2); 1 when both agree (Kong 1992).
        outside_band: Share of tokens whose ratio leaves the band.
    """

    num_tokens: int
    max_abs: float
    mean_abs: float
    k1: float
    k3: float
    ess: float
    outside_band: float

    def as_metrics(self) -> dict[str, float]:
        """Return the figures as event values, prefixed ``mismatch_``."""
        return {f"mismatch_{name}": value for name, value in asdict(self).items()}


def measure_mismatch(
    trainer_M: Tensor, behaviour_M: Tensor, *, band: tuple[float, float] = BAND
) -> Mismatch:
    """Compare log-probabilities of the same tokens by the trainer and by the sampler.

    Args:
        trainer_M: log pi, at the weights that drew the tokens.
        behaviour_M: log mu, as the sampler recorded them.
        band: Ratios pi / mu that count as agreeing.
    """
    trainer_M, behaviour_M = trainer_M.double(), behaviour_M.double()
    log_ratio_M = trainer_M - behaviour_M
    weights_M = log_ratio_M.exp()
    outside_M = (weights_M < band[0]) | (weights_M > band[1])
    return Mismatch(
        num_tokens=len(trainer_M),
        max_abs=float(log_ratio_M.abs().max()),
        mean_abs=float(log_ratio_M.abs().mean()),
        k1=float(-log_ratio_M.mean()),
        k3=float(kl_per_token(behaviour_M, trainer_M).mean()),
        ess=float(weights_M.sum().square() / (len(weights_M) * weights_M.square().sum())),
        outside_band=float(outside_M.double().mean()),
    )


def correction_weights(
    trainer_M: Tensor,
    behaviour_M: Tensor,
    correction: Correction,
    *,
    cap: float = 2.0,
    band: tuple[float, float] = BAND,
) -> Tensor:
    """Return the weight pi / mu of each token, bounded; no gradient flows through it.

    - ``none``: 1.
    - ``tis``: min(pi / mu, cap), truncated importance sampling (Ionides 2008; Yao et al. 2025,
      "Your efficient RL framework secretly brings you off-policy RL training").
    - ``mis``: pi / mu inside the band and 0 outside: masked importance sampling.
    """
    ratio_M = (trainer_M - behaviour_M).exp().detach()
    if correction == "none":
        return torch.ones_like(ratio_M)
    if correction == "tis":
        return ratio_M.clamp(max=cap)
    inside_M = (ratio_M >= band[0]) & (ratio_M <= band[1])
    return torch.where(inside_M, ratio_M, torch.zeros_like(ratio_M))
