"""Linear attention: plain, with fixed decays, gated. T tokens, D model width, N heads,
K key width, V value width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.recurrent.norm import GatedRMSNorm
from weft.ops.linear_attention.features import FEATURE_MAPS
from weft.ops.recurrent import linear_attention
from weft.spec import LinearAttentionSpec, NormSpec

# Keeps gates near 1 at the start of training (arXiv:2312.06635, section 4.4).
_GATE_TEMPERATURE = 16.0
_NORMALISER_EPS = 1e-6


class LinearAttention(nn.Module):
    """phi(q) (sum of decayed phi(k)^T v), perhaps over phi(q) . sum of decayed phi(k).

    ``qkv`` makes queries, keys and values, and behind them the output gate where there is one.
    """

    def __init__(
        self,
        dim: int,
        spec: LinearAttentionSpec,
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
        keys, values = spec.num_heads * spec.key_dim, spec.num_heads * spec.value_dim
        self.sizes = (keys, keys, values, values if spec.output_gate else 0)
        self.qkv = Linear(dim, sum(self.sizes), bias=False, **where)
        if spec.gate_rank is not None:
            self.forget_low = Linear(dim, spec.gate_rank, bias=False, **where)
            self.forget = Linear(spec.gate_rank, keys, bias=True, **where)
        if spec.output_gate:
            self.norm = GatedRMSNorm(spec.value_dim, norm.eps, **where)
        self.out = Linear(values, dim, bias=False, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] along each sequence."""
        spec = self.spec
        q_TM, k_TM, v_TM, gate_TM = self.qkv(x_TD).split(self.sizes, dim=-1)
        phi = FEATURE_MAPS[spec.feature_map]
        q_TNK, k_TNK = (phi(x.float().unflatten(-1, (-1, spec.key_dim))) for x in (q_TM, k_TM))
        v_TNV = v_TM.unflatten(-1, (-1, spec.value_dim))
        inputs = (q_TNK, k_TNK, v_TNV, *self._log_decay(x_TD))
        mixed_TNV = ctx.scan(self.layer, "matrix", self._recur, *inputs)
        if spec.output_gate:
            mixed_TNV = self.norm(mixed_TNV, gate_TM.unflatten(-1, (-1, spec.value_dim)))
        return self.out(mixed_TNV.flatten(1))

    def _log_decay(self, x_TD: Tensor) -> tuple[Tensor, ...]:
        """Return the log-decay [T, N, K] or [T, N, 1], or nothing."""
        spec = self.spec
        if spec.gate_rank is not None:
            gate_TNK = self.forget(self.forget_low(x_TD)).unflatten(-1, (-1, spec.key_dim))
            return (F.logsigmoid(gate_TNK.float()) / _GATE_TEMPERATURE,)
        heads_N1 = torch.arange(spec.num_heads, dtype=torch.float32, device=x_TD.device)[:, None]
        if spec.retention:
            return (torch.log1p(-(2.0 ** (-5.0 - heads_N1))).expand(len(x_TD), -1, -1),)
        if spec.lightning is not None:
            slopes_N1 = 2.0 ** (-8.0 * (heads_N1 + 1) / spec.num_heads)
            return ((-spec.lightning * slopes_N1).expand(len(x_TD), -1, -1),)
        return ()

    def _recur(
        self, inputs_T: Sequence[Tensor], lengths: tuple[int, ...], initial_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        q_TNK, k_TNK, v_TNV, *decay = inputs_T
        log_decay_TNK = decay[0] if decay else None
        if not self.spec.normalise:
            q_TNK = q_TNK * self.spec.key_dim**-0.5
            return linear_attention(q_TNK, k_TNK, v_TNV, log_decay_TNK, lengths, initial_B)
        # The normaliser is one more value that is always one.
        v_TNV = F.pad(v_TNV.float(), (0, 1), value=1.0)
        sums_TNV, final_B = linear_attention(q_TNK, k_TNK, v_TNV, log_decay_TNK, lengths, initial_B)
        mixed_TNV = sums_TNV[..., :-1] / (sums_TNV[..., -1:] + _NORMALISER_EPS)
        return mixed_TNV.to(inputs_T[2].dtype), final_B
