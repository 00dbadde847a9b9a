"""Soft-capping of logits: ``c tanh(x / c)`` (Bello et al. 2016, arXiv:1611.09940; Gemma 2)."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_cap(logits_TV: Tensor, softcap: float | None) -> Tensor:
    """Squeeze logits between -softcap and softcap, in at least float32; none leaves them alone."""
    if softcap is None:
        return logits_TV
    wide_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32))
    return softcap * torch.tanh(wide_TV / softcap)


def soft_cap_slope(capped_TV: Tensor, softcap: float) -> Tensor:
    """Return the derivative of ``soft_cap`` from what it returned."""
    return 1.0 - (capped_TV / softcap).square()
