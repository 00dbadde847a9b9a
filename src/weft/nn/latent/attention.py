"""Multi-head latent attention with merged projections.

T tokens, D model width, N heads, H query-key head width (P without position, R rotated), V value
head width, Q query latent width, C latent width, E = C + R.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.latent.indexer import Indexer
from weft.nn.latent.tokens import LatentTokens
from weft.nn.linear import Linear
from weft.nn.norm import build_norm
from weft.ops import apply_rotary
from weft.spec import MLASpec, NormSpec


class LatentAttention(nn.Module):
    """MLA (DeepSeek-V2, arXiv:2405.04434), with sparse selection where the spec has an indexer.

    ``down`` makes query latent (where there is one), latent and rotated key in one product, its
    rows in that order; ``kv_up`` makes P key and V value dimensions of each head from a latent.
    """

    def __init__(
        self,
        dim: int,
        spec: MLASpec,
        *,
        layer: int,
        norm: NormSpec,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.layer = layer
        where = {"device": device, "dtype": dtype}
        latent_norm = replace(norm, eps=spec.latent_norm_eps or norm.eps)
        query_dim, value_dim = spec.num_heads * spec.head_dim, spec.num_heads * spec.value_head_dim
        kv_dim = spec.num_heads * (spec.nope_head_dim + spec.value_head_dim)
        self.down = Linear(dim, sum(spec.down_rows), bias=spec.bias, **where)
        if spec.query_latent_dim is not None:
            self.query_norm = build_norm(spec.query_latent_dim, latent_norm, **where)
        self.query = Linear(spec.query_latent_dim or dim, query_dim, bias=False, **where)
        self.kv_norm = build_norm(spec.kv_latent_dim, latent_norm, **where)
        self.kv_up = Linear(spec.kv_latent_dim, kv_dim, bias=False, **where)
        self.gate = Linear(dim, value_dim, bias=False, **where) if spec.output_gate else None
        self.out = Linear(value_dim, dim, bias=spec.bias, **where)
        self.indexer = None if spec.indexer is None else Indexer(dim, spec, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] over the tokens that ``ctx`` lets each token see."""
        spec = self.spec
        *query, latent_TC, key_TR = self.down(x_TD).split(spec.down_rows, dim=-1)
        query_TQ = self.query_norm(query[0]) if query else x_TD
        q_TNH = self.query(query_TQ).unflatten(-1, (spec.num_heads, spec.head_dim))
        q_TNH, key_TR = self._rotate(q_TNH, key_TR, ctx)
        tokens = LatentTokens(
            q_TNH=q_TNH,
            latent_TE=torch.cat((self.kv_norm(latent_TC), key_TR), dim=-1),
            up_NMC=self.kv_up.weight.unflatten(0, (spec.num_heads, -1)),
            index=None if self.indexer is None else self.indexer(x_TD, query_TQ, ctx),
        )
        mixed_TW = ctx.attend_latent(self.layer, tokens, spec).flatten(1)
        if self.gate is not None:
            mixed_TW = mixed_TW * self.gate(x_TD).sigmoid()
        return self.out(mixed_TW)

    def _rotate(self, q_TNH: Tensor, key_TR: Tensor, ctx: StepContext) -> tuple[Tensor, Tensor]:
        """Turn the last R dimensions of the queries, and the shared key part."""
        spec = self.spec
        if spec.rotary is None or spec.rope_head_dim == 0:
            return q_TNH, key_TR
        tables = ctx.rotary(spec.rotary, spec.rope_head_dim)
        nope_TNP, rope_TNR = q_TNH.split((spec.nope_head_dim, spec.rope_head_dim), dim=-1)
        rope_TNR = apply_rotary(rope_TNR, *tables, spec.rotary.layout)
        key_T1R = apply_rotary(key_TR.unsqueeze(1), *tables, spec.rotary.layout)
        return torch.cat((nope_TNP, rope_TNR), dim=-1), key_T1R.squeeze(1)
