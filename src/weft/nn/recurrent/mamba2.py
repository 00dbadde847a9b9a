"""Mamba-2. T tokens, D model width, N heads, H head width, G groups, S state width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.recurrent.conv import CausalConv
from weft.nn.recurrent.norm import GatedRMSNorm
from weft.nn.recurrent.rates import init_rates, init_steps, log_decay, step_size
from weft.ops.recurrent import linear_attention
from weft.spec import Mamba2Spec, NormSpec


class Mamba2(nn.Module):
    """The mixer of Dao and Gu 2024 (arXiv:2405.21060).

    ``in_proj`` makes the gate, the convolved part (inputs, B, C) and the step sizes. A head is
    h_t = exp(a dt) h_{t-1} + dt B x^T, y = C h + D x: linear attention with queries C, keys B,
    values dt x and one decay per head. The input's factor dt is the first term of zero-order
    hold's (``weft.ops.mamba``).
    """

    def __init__(
        self,
        dim: int,
        spec: Mamba2Spec,
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
        columns = spec.inner_dim + spec.conv_dim + spec.num_heads
        self.in_proj = Linear(dim, columns, bias=spec.bias, **where)
        self.conv = CausalConv(
            spec.conv_dim, spec.conv_kernel, layer=layer, bias=spec.conv_bias, **where
        )
        self.a_log = nn.Parameter(torch.zeros(spec.num_heads, **where))
        self.dt_bias = nn.Parameter(torch.zeros(spec.num_heads, **where))
        self.skip = nn.Parameter(torch.ones(spec.num_heads, **where))
        self.norm = GatedRMSNorm(
            spec.inner_dim, spec.norm_eps, num_groups=spec.num_groups, gate_first=True, **where
        )
        self.out = Linear(spec.inner_dim, dim, bias=spec.bias, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] along each sequence."""
        spec = self.spec
        gate_TM, inner_TM, step_TN = self.in_proj(x_TD).split(
            (spec.inner_dim, spec.conv_dim, spec.num_heads), dim=-1
        )
        inner_TM = F.silu(self.conv(inner_TM, ctx))
        step_TN = step_size(step_TN, self.dt_bias).clamp(*spec.time_step_limit)
        mixed_TNH = ctx.scan(self.layer, "matrix", self._recur, inner_TM, step_TN)
        return self.out(self.norm(mixed_TNH.flatten(1).to(x_TD.dtype), gate_TM))

    def _recur(
        self, inputs_T: Sequence[Tensor], lengths: tuple[int, ...], initial_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inner_TM, step_TN = inputs_T
        spec = self.spec
        shared = spec.num_groups * spec.state_dim
        x_TM, b_TM, c_TM = inner_TM.float().split((spec.inner_dim, shared, shared), dim=-1)
        x_TNH = x_TM.unflatten(-1, (-1, spec.head_dim))
        b_TGS, c_TGS = (x.unflatten(-1, (-1, spec.state_dim)) for x in (b_TM, c_TM))
        decay_TN1 = log_decay(self.a_log, step_TN)[..., None]
        mixed_TNH, final_B = linear_attention(
            c_TGS, b_TGS, x_TNH * step_TN[..., None], decay_TN1, lengths, initial_B
        )
        return mixed_TNH + x_TNH * self.skip.float()[:, None], final_B

    def init_parameters(self, generator: torch.Generator) -> None:
        """Draw rates between 1 and 16 and step sizes between 0.001 and 0.1."""
        init_rates(self.a_log, 16.0, generator)
        init_steps(self.dt_bias, generator)
        self.skip.fill_(1.0)
