"""A linear layer whose product goes through ``weft.ops``. T tokens, D inner, F outer width."""

from __future__ import annotations

from torch import Tensor, nn

from weft.ops import linear


class Linear(nn.Linear):
    """``x W^T + b``; parameters and names are those of ``torch.nn.Linear``."""

    def forward(self, x_TD: Tensor) -> Tensor:
        """Map [T, D] to [T, F]."""
        return linear(x_TD, self.weight, self.bias)
