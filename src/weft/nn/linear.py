"""A linear layer whose product goes through ``weft.ops``. T tokens, D inner, F outer width."""

from __future__ import annotations

from torch import Tensor, nn

from weft.ops import linear


class Linear(nn.Linear):
    """``x W^T + b``; parameters and names are those of ``torch.nn.Linear``."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [T, D] to [T, F]; the argument has torch's name."""
        return linear(input, self.weight, self.bias)
