"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Callable[[Tensor], Tensor]


def relu2(x: Tensor) -> Tensor:
    """Return max(0, x)² (So et al. 2021, arXiv:2109.08668)."""
    return F.relu(x).square()


def quick_gelu(x: Tensor) -> Tensor:
    """Return x σ(1.702 x) (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Activation] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "relu2": relu2,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": partial(torch.softmax, dim=-1),
    "identity": torch.clone,
}


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Return x where positive, slope · x elsewhere, the slope learnt (arXiv:1502.01852)."""
    return torch.where(x > 0, x, slope * x)
