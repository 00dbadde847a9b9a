"""Kimi Delta Attention. T tokens, D model width, N heads, H head width, R rank of the gates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.recurrent.conv import CausalConv
from weft.nn.recurrent.gated_delta_net import unit
from weft.nn.recurrent.norm import GatedRMSNorm
from weft.nn.recurrent.rates import init_rates, init_steps, log_decay, step_size
from weft.ops.recurrent import delta_rule
from weft.spec import KimiDeltaSpec, NormSpec


class KimiDelta(nn.Module):
    """The mixer of Kimi Linear (arXiv:2510.26692): a delta rule that forgets per key channel.

    ``qkv`` makes queries, keys and values; ``low`` the inner widths of the forget gate and the
    output gate, and the write strengths of the heads.
    """

    def __init__(
        self,
        dim: int,
        spec: KimiDeltaSpec,
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
        inner = spec.num_heads * spec.head_dim
        self.qkv = Linear(dim, 3 * inner, bias=False, **where)
        self.low = Linear(dim, 2 * spec.rank + spec.num_heads, bias=False, **where)
        self.forget = Linear(spec.rank, inner, bias=False, **where)
        self.gate = Linear(spec.rank, inner, bias=False, **where)
        self.conv = CausalConv(3 * inner, spec.conv_kernel, layer=layer, **where)
        self.a_log = nn.Parameter(torch.zeros(spec.num_heads, **where))
        self.dt_bias = nn.Parameter(torch.zeros(inner, **where))
        self.norm = GatedRMSNorm(
            spec.head_dim, norm.eps, activation="sigmoid", float32_weight=True, **where
        )
        self.out = Linear(inner, dim, bias=False, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] along each sequence."""
        spec = self.spec
        heads = (spec.num_heads, spec.head_dim)
        qkv_TM = F.silu(self.conv(self.qkv(x_TD), ctx))
        forget_TR, gate_TR, write_TN = self.low(x_TD).split(
            (spec.rank, spec.rank, spec.num_heads), dim=-1
        )
        step_TNH = step_size(self.forget(forget_TR), self.dt_bias).unflatten(-1, heads)
        decay_TNH = log_decay(self.a_log[:, None], step_TNH)
        mixed_TNH = ctx.scan(
            self.layer, "matrix", self._recur, qkv_TM, write_TN.sigmoid(), decay_TNH
        )
        gate_TNH = self.gate(gate_TR).unflatten(-1, heads)
        return self.out(self.norm(mixed_TNH, gate_TNH).flatten(1))

    def _recur(
        self, inputs_T: Sequence[Tensor], lengths: tuple[int, ...], initial_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        qkv_TM, write_TN, decay_TNH = inputs_T
        q_TNH, k_TNH, v_TNH = qkv_TM.unflatten(-1, (3, -1, self.spec.head_dim)).unbind(1)
        q_TNH = unit(q_TNH) * self.spec.head_dim**-0.5
        return delta_rule(q_TNH, unit(k_TNH), v_TNH, write_TN, decay_TNH, lengths, initial_B)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Draw rates between 1 and 16 and step sizes between 0.001 and 0.1."""
        init_rates(self.a_log, 16.0, generator)
        init_steps(self.dt_bias, generator)
