"""Sigmoid, tanh and softplus whose bits do not depend on where in a tensor a number stands.

torch computes elementwise functions in vectors and what is left over one by one, with another
exponential; so a token's gate would depend on how many tokens are in the batch. A softmax over the
last axis treats every row alike.
"""

from __future__ import annotations

import torch
from torch import Tensor


def stable_sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + e^-x) as the softmax of x against 0."""
    return torch.stack((x, torch.zeros_like(x)), dim=-1).softmax(-1)[..., 0]


def stable_tanh(x: Tensor) -> Tensor:
    """Return tanh x as the two halves of the softmax of x against -x, one less the other.

    In float64, as the difference of two numbers near a half has few digits left.
    """
    pair = torch.stack((x, -x), dim=-1).softmax(-1, dtype=torch.float64)
    return (pair[..., 0] - pair[..., 1]).to(x.dtype)


def stable_softplus(x: Tensor) -> Tensor:
    """Return ln(1 + e^x) as minus the log-softmax of 0 against x."""
    return -torch.stack((torch.zeros_like(x), x), dim=-1).log_softmax(-1)[..., 0]
