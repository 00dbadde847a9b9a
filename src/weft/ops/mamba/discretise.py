"""From x'(t) = a x(t) + b u(t) to x_t = A x_{t-1} + B u_t for inputs held over a step.

Zero-order hold gives A = exp(a dt) and B = (exp(a dt) - 1) / a * b exactly. Mamba and Mamba-2
keep this A and shorten B to dt * b, its first term in dt (Gu and Dao 2023, arXiv:2312.00752,
section 3.6).
"""

from __future__ import annotations

import torch
from torch import Tensor


def zero_order_hold(rate: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return the decay exp(a dt) and the exact factor (exp(a dt) - 1) / a of the input."""
    grown = torch.expm1(rate * step)
    safe = torch.where(rate == 0, torch.ones_like(rate), rate)
    return grown + 1.0, torch.where(rate == 0, step.expand_as(grown), grown / safe)


def mamba_step(rate: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the decay, a dt, and Mamba's factor dt of the input."""
    return rate * step, step
