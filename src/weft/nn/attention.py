"""Softmax attention with merged projections.

T tokens, D model width, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.norm import build_norm
from weft.ops import apply_rotary
from weft.spec import AttentionSpec, NormSpec


class Attention(nn.Module):
    """Multi-head, multi-query or grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245).

    The query, key and value projections are one matrix with rows in that order, so that the
    trainer, the engine and every checkpoint share one tensor and one matrix product.
    """

    def __init__(
        self,
        dim: int,
        spec: AttentionSpec,
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
        self.qkv = Linear(dim, sum(spec.qkv_rows), bias=spec.qkv_bias, **where)
        self.out = Linear(spec.query_dim, dim, bias=spec.out_bias, **where)
        if spec.qk_norm == "head":
            self.q_norm = build_norm(spec.head_dim, norm, **where)
            self.k_norm = build_norm(spec.head_dim, norm, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] over the tokens that ``ctx`` lets each token see."""
        spec = self.spec
        qkv_TMH = self.qkv(x_TD).unflatten(-1, (-1, spec.head_dim))
        q_TNH, k_TKH, v_TKH = qkv_TMH.split(
            (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads), dim=1
        )
        if spec.qk_norm == "head":
            q_TNH, k_TKH = self.q_norm(q_TNH), self.k_norm(k_TKH)
        if spec.rotary is not None:
            cos_TR, sin_TR = ctx.rotary(spec.rotary, spec.rotary_dim)
            q_TNH = apply_rotary(q_TNH, cos_TR, sin_TR, spec.rotary.layout)
            k_TKH = apply_rotary(k_TKH, cos_TR, sin_TR, spec.rotary.layout)
        mixed_TNH = ctx.attend(self.layer, q_TNH, k_TKH, v_TKH, spec)
        return self.out(mixed_TNH.flatten(1))
