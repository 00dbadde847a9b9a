"""RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.ops import rms_norm


class RMSNorm(nn.Module):
    """Scale the last axis to unit root mean square, then by a learnt weight.

    Statistics are taken in float32 and the result is cast back before the weight is applied,
    in the order of Hugging Face's Llama, so that both round alike.
    """

    def __init__(
        self,
        dim: int,
        eps: float,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., dim]."""
        return rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"
