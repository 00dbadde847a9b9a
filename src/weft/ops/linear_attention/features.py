"""Feature maps phi of linear attention: exp(q . k) is replaced by phi(q) . phi(k)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURE_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "elu": lambda x: F.elu(x) + 1.0,  # arXiv:2006.16236
    "relu": F.relu,
    "softmax": lambda x: torch.softmax(x, dim=-1),  # over the features: arXiv:1812.01243
}
