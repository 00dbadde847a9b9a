"""Block drafting: a head that fills several masked places in one pass (after DFlash; the bigram
bias is the Markov head of DSpark).

T tokens, D model width, V vocabulary, R rank. The rows of the head are the model's normalised
hidden states of all known tokens, projected; then the token drawn last, embedded; then masks. So
every layer attends to keys and values made of what the model knows, and all guesses come from one
pass. Guesses of one pass do not know each other: a low-rank bigram bias, added as they are drawn
one after the other, mends the worst of it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from weft.models.decoder import Block
from weft.models.eagle import head_layer
from weft.models.init import init_weights
from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.norm import build_norm
from weft.spec import ModelSpec


class BlockHead(nn.Module):
    """A head for one model.

    Args:
        spec: The model it drafts for.
        ffn_dim: Inner width of its feed-forward parts.
        num_layers: Its blocks.
        rank: Of the bigram bias; 0 has none.
        seed: Of its first weights.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        ffn_dim: int,
        num_layers: int = 1,
        rank: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        layer = head_layer(spec, ffn_dim)
        self.spec = replace(spec, layers=(layer,) * num_layers, num_mtp_layers=0)
        self.ffn_dim, self.rank = ffn_dim, rank
        self.inject = Linear(spec.dim, spec.dim, bias=False, device=device, dtype=dtype)
        self.mask = nn.Parameter(torch.zeros(spec.dim, device=device, dtype=dtype))
        self.blocks = nn.ModuleList(
            Block(spec.dim, layer, layer=index, norm=spec.norm, device=device, dtype=dtype)
            for index in range(num_layers)
        )
        self.norm = build_norm(spec.dim, spec.norm, device=device, dtype=dtype)
        self.bigram_in = Linear(spec.vocab_size, rank, bias=False, device=device, dtype=dtype)
        self.bigram_out = Linear(rank, spec.vocab_size, bias=False, device=device, dtype=dtype)
        if self.mask.device.type != "meta":
            init_weights(self, self.spec, seed=seed)
            nn.init.zeros_(self.bigram_out.weight)

    def forward(self, rows_TD: Tensor, ctx: StepContext) -> Tensor:
        """Return the hidden states that guesses are scored from, [T, D].

        Args:
            rows_TD: Per sequence ``inject`` of the known hidden states, the embedding of the last
                token, then ``mask`` for each further guess.
            ctx: Of these rows.
        """
        for block in self.blocks:
            rows_TD = block(rows_TD, ctx)
        return self.norm(rows_TD)

    def bias(self, before_T: Tensor) -> Tensor:
        """Return what the token before adds to the scores of each token, [T, V]."""
        return self.bigram_out(self.bigram_in.weight.T[before_T]).float()
