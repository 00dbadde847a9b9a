"""Softmax attention with merged projections.

T tokens, D model width, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.norm import build_norm
from weft.nn.positions import alibi_slopes
from weft.ops import ScoreRule, apply_rotary
from weft.spec import AttentionSpec, NormSpec


class Attention(nn.Module):
    """Multi-head, multi-query or grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245).

    The query, key and value projections are one matrix with rows in that order, so that the
    trainer, the engine and every checkpoint share one tensor and one matrix product. With an
    output gate every query head is followed by its gate; a layer that uses another's keys and
    values has query rows only.
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
        if spec.qk_norm != "none":
            one_head = spec.qk_norm == "head"
            self.q_norm = build_norm(spec.head_dim if one_head else spec.query_dim, norm, **where)
            if spec.kv_source is None:
                key_dim = spec.head_dim if one_head else spec.kv_dim
                self.k_norm = build_norm(key_dim, norm, **where)
        if spec.sinks:
            self.sinks = nn.Parameter(torch.zeros(spec.num_heads, **where))

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] over the tokens that ``ctx`` lets each token see."""
        spec = self.spec
        parts = self.qkv(x_TD).split(spec.qkv_rows, dim=-1)
        q_TNH, gate_TNH = self._heads(parts[0], spec.num_heads), None
        if spec.output_gate:
            q_TNH, gate_TNH = parts[0].unflatten(-1, (spec.num_heads, -1)).chunk(2, dim=-1)
        q_TNH, k_TKH, v_TKH = self._turned(self._normed(q_TNH, "q"), ctx), None, None
        if spec.kv_source is None:
            k_TKH = self._heads(parts[1], spec.num_kv_heads)
            k_TKH = self._turned(self._normed(k_TKH, "k"), ctx)
            v_TKH = self._heads(parts[2], spec.num_kv_heads)
        rule = self._rule(ctx)
        mixed_TNH = ctx.attend(self.layer, q_TNH, k_TKH, v_TKH, rule, kv_source=spec.kv_source)
        if gate_TNH is not None:
            mixed_TNH = mixed_TNH * gate_TNH.sigmoid()
        return self.out(mixed_TNH.flatten(1))

    def _heads(self, x_TC: Tensor, num_heads: int) -> Tensor:
        return x_TC.unflatten(-1, (num_heads, -1))

    def _normed(self, x_TNH: Tensor, part: Literal["q", "k"]) -> Tensor:
        if self.spec.qk_norm == "none":
            return x_TNH
        norm = self.q_norm if part == "q" else self.k_norm
        if self.spec.qk_norm == "head":
            return norm(x_TNH)
        return norm(x_TNH.flatten(1)).unflatten(-1, x_TNH.shape[1:])

    def _turned(self, x_TNH: Tensor, ctx: StepContext) -> Tensor:
        rotary = self.spec.rotary
        if rotary is None:
            return x_TNH
        cos_TR, sin_TR = ctx.rotary(rotary, self.spec.rotary_dim)
        return apply_rotary(x_TNH, cos_TR, sin_TR, rotary.layout)

    def _rule(self, ctx: StepContext) -> ScoreRule:
        spec = self.spec
        return ScoreRule(
            scale=spec.softmax_scale,
            window=spec.window,
            causal=spec.causal,
            softcap=spec.softcap,
            sinks_N=self.sinks if spec.sinks else None,
            slopes_N=self._slopes_N() if spec.alibi else None,
            bias_NR=None if spec.relative is None else ctx.relative_bias_NR,
        )

    def _slopes_N(self) -> Tensor:
        device = self.out.weight.device
        return alibi_slopes(self.spec.num_heads, device, stretch=self.spec.alibi_stretch)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Start the sinks at zero: as likely as a key of no match."""
        if self.spec.sinks:
            self.sinks.zero_()
