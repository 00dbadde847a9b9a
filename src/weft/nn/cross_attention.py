"""Attention from a decoder's tokens to the texts an encoder read.

T target tokens, S source tokens, D model width, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.ops import ScoreRule, packed_attention
from weft.spec import AttentionSpec


class CrossAttention(nn.Module):
    """Queries from the target, keys and values from the memory (arXiv:1706.03762, section 3.2.3).

    A target token sees all tokens of its own source and none of any other.
    """

    def __init__(
        self,
        dim: int,
        spec: AttentionSpec,
        *,
        layer: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.layer = layer
        where = {"device": device, "dtype": dtype}
        self.q = Linear(dim, spec.query_dim, bias=spec.qkv_bias, **where)
        self.kv = Linear(dim, 2 * spec.kv_dim, bias=spec.qkv_bias, **where)
        self.out = Linear(spec.query_dim, dim, bias=spec.out_bias, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Read from the source of each token, [T, D]."""
        memory = ctx.memory
        assert memory is not None, "a layer with cross attention needs a memory"
        q_TNH = self.q(x_TD).unflatten(-1, (-1, self.spec.head_dim))
        k_SKH, v_SKH = memory.keys_values(self.layer, self._project)
        read_TNH = packed_attention(
            q_TNH,
            k_SKH,
            v_SKH,
            memory.query_lengths(ctx.lengths),
            ScoreRule(self.spec.softmax_scale, causal=False, softcap=self.spec.softcap),
            key_lengths=memory.lengths,
        )
        return self.out(read_TNH.flatten(1))

    def _project(self, hidden_SD: Tensor) -> tuple[Tensor, Tensor]:
        kv_SMH = self.kv(hidden_SD).unflatten(-1, (-1, self.spec.head_dim))
        k_SKH, v_SKH = kv_SMH.chunk(2, dim=1)
        return k_SKH, v_SKH
