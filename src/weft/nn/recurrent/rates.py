"""How fast a recurrence forgets: log-decay = -exp(a_log) softplus(dt + dt_bias), and its start."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def log_decay(a_log: Tensor, step: Tensor) -> Tensor:
    """Return -exp(a_log) times the step size, float32; ``a_log`` broadcasts."""
    return -a_log.float().exp() * step


def step_size(step: Tensor, bias: Tensor) -> Tensor:
    """Return softplus(step + bias), float32: zero-order hold's dt (arXiv:2312.00752)."""
    return F.softplus(step.float() + bias.float())


@torch.no_grad()
def init_rates(a_log: Tensor, largest: float, generator: torch.Generator) -> None:
    """Draw rates uniformly between 1 and ``largest``."""
    values = torch.empty(a_log.shape, dtype=torch.float32)
    a_log.copy_(values.uniform_(1.0, largest, generator=generator).log())


@torch.no_grad()
def init_steps(
    dt_bias: Tensor, generator: torch.Generator, *, smallest: float = 1e-3, largest: float = 0.1
) -> None:
    """Draw step sizes log-uniformly; the bias is what softplus turns into them."""
    values = torch.empty(dt_bias.shape, dtype=torch.float32)
    values.uniform_(math.log(smallest), math.log(largest), generator=generator).exp_()
    dt_bias.copy_(values + torch.log(-torch.expm1(-values)))
