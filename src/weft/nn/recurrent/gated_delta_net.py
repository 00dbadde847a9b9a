"""Gated DeltaNet. T tokens, D model width, G query-key heads, N value heads, K key width,
V value width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.recurrent.conv import CausalConv
from weft.nn.recurrent.norm import GatedRMSNorm
from weft.nn.recurrent.rates import init_rates, log_decay, step_size
from weft.ops.recurrent import delta_rule
from weft.spec import GatedDeltaNetSpec, NormSpec

# Added to the squared length of queries and keys, as the published models do.
_UNIT_EPS = 1e-6


class GatedDeltaNet(nn.Module):
    """The mixer of Yang et al. 2024 (arXiv:2412.06464).

    ``qkvz`` makes queries, keys, values and the output gate, ``ba`` the write strengths and step
    sizes of the value heads.
    """

    def __init__(
        self,
        dim: int,
        spec: GatedDeltaNetSpec,
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
        values = spec.num_value_heads * spec.value_dim
        self.qkvz = Linear(dim, spec.conv_dim + values, bias=False, **where)
        self.ba = Linear(dim, 2 * spec.num_value_heads, bias=False, **where)
        self.conv = CausalConv(spec.conv_dim, spec.conv_kernel, layer=layer, **where)
        self.a_log = nn.Parameter(torch.zeros(spec.num_value_heads, **where))
        self.dt_bias = nn.Parameter(torch.ones(spec.num_value_heads, **where))
        self.norm = GatedRMSNorm(spec.value_dim, norm.eps, **where)
        self.out = Linear(values, dim, bias=False, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] along each sequence."""
        spec = self.spec
        values = spec.num_value_heads * spec.value_dim
        qkv_TM, z_TM = self.qkvz(x_TD).split((spec.conv_dim, values), dim=-1)
        qkv_TM = F.silu(self.conv(qkv_TM, ctx))
        write_TN, step_TN = self.ba(x_TD).chunk(2, dim=-1)
        decay_TN = log_decay(self.a_log, step_size(step_TN, self.dt_bias))
        mixed_TNV = ctx.scan(
            self.layer, "matrix", self._recur, qkv_TM, write_TN.sigmoid(), decay_TN[..., None]
        )
        z_TNV = z_TM.unflatten(-1, (-1, spec.value_dim))
        return self.out(self.norm(mixed_TNV, z_TNV).flatten(1))

    def _recur(
        self, inputs_T: Sequence[Tensor], lengths: tuple[int, ...], initial_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        qkv_TM, write_TN, decay_TN1 = inputs_T
        spec = self.spec
        keys = spec.num_key_heads * spec.key_dim
        q_TM, k_TM, v_TM = qkv_TM.split((keys, keys, qkv_TM.shape[-1] - 2 * keys), dim=-1)
        q_TGK, k_TGK = (unit(x.unflatten(-1, (-1, spec.key_dim))) for x in (q_TM, k_TM))
        v_TNV = v_TM.unflatten(-1, (-1, spec.value_dim))
        q_TGK = q_TGK * spec.key_dim**-0.5
        return delta_rule(q_TGK, k_TGK, v_TNV, write_TN, decay_TN1, lengths, initial_B)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Draw rates between 1 and 16; step sizes start alike."""
        init_rates(self.a_log, 16.0, generator)
        self.dt_bias.fill_(1.0)


def unit(x: Tensor) -> Tensor:
    """Scale the last axis to unit length, float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + _UNIT_EPS)
