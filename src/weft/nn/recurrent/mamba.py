"""Mamba. T tokens, D model width, M channels, S state width, R rank of the step sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.recurrent.conv import CausalConv
from weft.nn.recurrent.rates import init_steps, step_size
from weft.ops.mamba.sequences import mamba
from weft.spec import MambaSpec, NormSpec


class Mamba(nn.Module):
    """The mixer of Gu and Dao 2023 (arXiv:2312.00752).

    ``in_proj`` makes inputs and gate, ``x_proj`` the low-rank step sizes, B and C from the
    convolved inputs. A channel is h_t = exp(a dt) h_{t-1} + dt B x, y = C h + skip x.
    """

    def __init__(
        self,
        dim: int,
        spec: MambaSpec,
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
        self.in_proj = Linear(dim, 2 * spec.inner_dim, bias=spec.bias, **where)
        self.conv = CausalConv(
            spec.inner_dim, spec.conv_kernel, layer=layer, bias=spec.conv_bias, **where
        )
        self.x_proj = Linear(
            spec.inner_dim, spec.step_rank + 2 * spec.state_dim, bias=False, **where
        )
        self.step = Linear(spec.step_rank, spec.inner_dim, bias=False, **where)
        self.dt_bias = nn.Parameter(torch.zeros(spec.inner_dim, **where))
        self.a_log = nn.Parameter(torch.zeros(spec.inner_dim, spec.state_dim, **where))
        self.skip = nn.Parameter(torch.ones(spec.inner_dim, **where))
        self.out = Linear(spec.inner_dim, dim, bias=spec.bias, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] along each sequence."""
        spec = self.spec
        inner_TM, gate_TM = self.in_proj(x_TD).chunk(2, dim=-1)
        inner_TM = F.silu(self.conv(inner_TM, ctx))
        parts = self.x_proj(inner_TM).split((spec.step_rank, spec.state_dim, spec.state_dim), -1)
        low_TR, b_TS, c_TS = (self._normed(part) for part in parts)
        step_TM = step_size(self.step(low_TR), self.dt_bias)
        mixed_TM = ctx.scan(self.layer, "matrix", self._recur, inner_TM, step_TM, b_TS, c_TS)
        return self.out(mixed_TM.to(x_TD.dtype) * F.silu(gate_TM))

    def _normed(self, x: Tensor) -> Tensor:
        eps = self.spec.inner_norm_eps
        return x if eps is None else F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype)

    def _recur(
        self, inputs_T: Sequence[Tensor], lengths: tuple[int, ...], initial_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inner_TM, step_TM, b_TS, c_TS = inputs_T
        inner_TM, rate_MS = inner_TM.float(), -self.a_log.float().exp()
        mixed_TM, final_B = mamba(inner_TM, step_TM, rate_MS, b_TS, c_TS, lengths, initial_B)
        return mixed_TM + inner_TM * self.skip.float(), final_B

    def init_parameters(self, generator: torch.Generator) -> None:
        """Give each state's numbers the rates 1 .. S (S4D-real) and steps of 0.001 to 0.1."""
        rates_S = torch.arange(1, self.spec.state_dim + 1, dtype=torch.float32)
        self.a_log.copy_(rates_S.log().expand_as(self.a_log))
        init_steps(self.dt_bias, generator)
        self.skip.fill_(1.0)
