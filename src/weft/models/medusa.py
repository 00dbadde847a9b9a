"""Medusa heads: each guesses a token further ahead from one hidden state (Cai et al. 2024,
arXiv:2401.10774).

T tokens, D model width, V vocabulary, K heads. Head k, counted from 1, adds a residual layer to the
model's normalised hidden state at position i and scores token i + 1 + k with the model's own output
projection. The residual starts at zero, so an untrained head repeats the model's own guess.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.nn.linear import Linear


class MedusaHeads(nn.Module):
    """K residual layers.

    Args:
        dim: Width of the model.
        num_heads: How many tokens further ahead.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.heads = nn.ModuleList(
            Linear(dim, dim, bias=True, device=device, dtype=dtype) for _ in range(num_heads)
        )
        if device is None or torch.device(device).type != "meta":
            for parameter in self.parameters():
                nn.init.zeros_(parameter)

    def forward(self, hidden_TD: Tensor) -> list[Tensor]:
        """Return of each head, nearest first, the hidden states it scores, [T, D]."""
        return [hidden_TD + functional.silu(head(hidden_TD)) for head in self.heads]
