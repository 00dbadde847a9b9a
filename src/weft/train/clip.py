"""Gradient scaling and clipping that the host never waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


class GradientNorm(NamedTuple):
    """Global norm of the scaled gradients before clipping, and whether it is not finite.

    Both are 0-d float32 tensors on the gradients' device; ``found_inf`` is 0 or 1, the form
    torch's fused optimizers take.
    """

    norm: Tensor
    found_inf: Tensor


@torch.no_grad()
def scale_and_clip(
    gradients: Sequence[Tensor], *, divisor: Tensor | float, max_norm: float | None
) -> GradientNorm:
    """Divide gradients by ``divisor`` in place, then limit their global L2 norm to ``max_norm``.

    Both are one multiplication of every gradient. Source: Pascanu et al. 2013, arXiv:1211.5063.
    """
    norm = get_total_norm(gradients).float() / divisor
    coefficient = torch.ones_like(norm)
    if max_norm is not None:
        coefficient = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(list(gradients), coefficient / divisor)
    return GradientNorm(norm, (~norm.isfinite()).float())
