"""A linear map in plain torch. T tokens (any leading axes), D inner width, F outer width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def linear(x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
    """Return ``x W^T + b``."""
    return F.linear(x_TD, weight_FD, bias_F)
