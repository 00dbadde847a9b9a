"""The lightning indexer: which positions each query of latent attention keeps.

T tokens, D model width, Q query latent width, I index heads, J index head width.

``score(t, s) = sum_i w(t, i) relu(q(t, i) . k(s))`` (DeepSeek-V3.2-Exp report, 2025, equation 1).
The published models also turn queries and keys by a Hadamard matrix and round them to FP8 for
speed; the first changes no product, the second is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.latent.tokens import IndexTokens
from weft.nn.linear import Linear
from weft.nn.norm import LayerNorm
from weft.ops import apply_rotary
from weft.spec import MLASpec

KEY_NORM_EPS = 1e-6


class Indexer(nn.Module):
    """Index queries from the query latent, one index key per token, a weight per head."""

    def __init__(
        self,
        dim: int,
        spec: MLASpec,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        assert spec.indexer is not None
        assert spec.query_latent_dim is not None
        self.spec = spec
        self.indexer = spec.indexer
        where = {"device": device, "dtype": dtype}
        rows = self.indexer.num_heads * self.indexer.head_dim
        self.query = Linear(spec.query_latent_dim, rows, bias=False, **where)
        self.key = Linear(dim, self.indexer.head_dim, bias=False, **where)
        self.key_norm = LayerNorm(self.indexer.head_dim, KEY_NORM_EPS, **where)
        self.head_weights = Linear(dim, self.indexer.num_heads, bias=False, **where)

    def forward(self, x_TD: Tensor, query_TQ: Tensor, ctx: StepContext) -> IndexTokens:
        """Return what the indexer knows of each token, from input and query latent."""
        num_heads, width = self.indexer.num_heads, self.indexer.head_dim
        q_TIJ = self.query(query_TQ).unflatten(-1, (num_heads, width))
        key_T1J = self.key_norm(self.key(x_TD)).unsqueeze(1)
        if self.spec.rotary is not None:
            tables = ctx.rotary(self.spec.rotary, self.spec.rope_head_dim)
            q_TIJ = apply_rotary(q_TIJ, *tables, self.indexer.rotary_layout)
            key_T1J = apply_rotary(key_T1J, *tables, self.indexer.rotary_layout)
        # Both widths go into the weights: relu lets positive factors pass.
        weights_TI = self.head_weights(x_TD).float() * (num_heads * width) ** -0.5
        return IndexTokens(q_TIJ, key_T1J.squeeze(1), weights_TI)
