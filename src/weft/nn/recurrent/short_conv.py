"""A gated short convolution as mixer. T tokens, D model width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.recurrent.conv import CausalConv
from weft.spec import NormSpec, ShortConvSpec


class ShortConv(nn.Module):
    """``out(c * conv(b * x))`` with b, c and x from one projection (LFM2, arXiv:2511.23404)."""

    def __init__(
        self,
        dim: int,
        spec: ShortConvSpec,
        *,
        layer: int,
        norm: NormSpec,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        where = {"device": device, "dtype": dtype}
        self.in_proj = Linear(dim, 3 * spec.dim, bias=spec.bias, **where)
        self.conv = CausalConv(spec.dim, spec.kernel, layer=layer, bias=spec.bias, **where)
        self.out = Linear(spec.dim, dim, bias=spec.bias, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] along each sequence."""
        b_TD, c_TD, x_TD = self.in_proj(x_TD).chunk(3, dim=-1)
        return self.out(c_TD * self.conv(b_TD * x_TD, ctx))
