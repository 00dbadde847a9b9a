"""Each activation written out; what ``functions.py`` is held to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""The fixed point of mean 0 and variance 1 (Klambauer et al. 2017, arXiv:1706.02515)."""


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + e^-x)."""
    return 1 / (1 + torch.exp(-x))


def tanh(x: Tensor) -> Tensor:
    """Return (e^x - e^-x) / (e^x + e^-x)."""
    return (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x))


def softmax(x: Tensor) -> Tensor:
    """Return e^x / sum e^x along the last axis."""
    exponentials = torch.exp(x - x.amax(-1, keepdim=True))
    return exponentials / exponentials.sum(-1, keepdim=True)


def relu(x: Tensor) -> Tensor:
    """Return max(0, x)."""
    return torch.where(x > 0, x, 0.0)


def leaky_relu(x: Tensor) -> Tensor:
    """Return x where positive, 0.01 x elsewhere."""
    return torch.where(x > 0, x, 0.01 * x)


def elu(x: Tensor) -> Tensor:
    """Return x where positive, e^x - 1 elsewhere (arXiv:1511.07289)."""
    return torch.where(x > 0, x, torch.exp(x) - 1)


def selu(x: Tensor) -> Tensor:
    """Return scale · ELU with alpha, both fixed (arXiv:1706.02515)."""
    return SELU_SCALE * torch.where(x > 0, x, SELU_ALPHA * (torch.exp(x) - 1))


def gelu(x: Tensor) -> Tensor:
    """Return x Φ(x) with the normal distribution function (arXiv:1606.08415)."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: Tensor) -> Tensor:
    """Return GELU with Φ approximated by a tanh (arXiv:1606.08415)."""
    return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def quick_gelu(x: Tensor) -> Tensor:
    """Return x σ(1.702 x)."""
    return x * sigmoid(1.702 * x)


def silu(x: Tensor) -> Tensor:
    """Return x σ(x), also called Swish (arXiv:1710.05941)."""
    return x * sigmoid(x)


def mish(x: Tensor) -> Tensor:
    """Return x tanh(ln(1 + e^x)) (arXiv:1908.08681)."""
    return x * tanh(torch.log(1 + torch.exp(x)))


def relu2(x: Tensor) -> Tensor:
    """Return max(0, x)²."""
    return relu(x) * relu(x)


def identity(x: Tensor) -> Tensor:
    """Return x."""
    return x
