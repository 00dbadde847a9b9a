"""RWKV-5 (Eagle) and RWKV-6 (Finch), Peng et al. 2024 (arXiv:2404.05892).

T tokens, D model width, N heads, H head width, M = N H, P shifted inputs, R rank of their shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.norm import GroupNorm
from weft.ops.recurrent import token_shift
from weft.ops.rwkv.matrix import matrix_wkv
from weft.spec import MatrixRWKVSpec, NormSpec

# How far the maps of RWKV-6 start from the fixed shares and decays of RWKV-5.
_SMALL = 0.01


class MatrixRWKV(nn.Module):
    """Time mixing with a matrix per head: read with a receptance, forget per channel, write.

    ``mix`` holds the previous token's shares for receptance, key, value and gate, with RWKV-6 for
    the decay too. Channel mixing is that of RWKV-4.
    """

    def __init__(
        self,
        dim: int,
        spec: MatrixRWKVSpec,
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
        num_inputs = 4 if spec.shift_rank is None else 5
        self.mix = nn.Parameter(torch.zeros(num_inputs, dim, **where))
        self.decay = nn.Parameter(torch.zeros(spec.num_heads, spec.head_dim, **where))
        self.bonus = nn.Parameter(torch.zeros(spec.num_heads, spec.head_dim, **where))
        if spec.shift_rank is not None and spec.decay_rank is not None:
            self.mix_low = nn.Parameter(torch.zeros(dim, **where))
            self.shift_low = Linear(dim, num_inputs * spec.shift_rank, bias=False, **where)
            self.shift_up = nn.Parameter(torch.zeros(num_inputs, spec.shift_rank, dim, **where))
            self.decay_low = Linear(dim, spec.decay_rank, bias=False, **where)
            self.decay_up = nn.Parameter(torch.zeros(spec.inner_dim, spec.decay_rank, **where))
        self.receptance = Linear(dim, spec.inner_dim, bias=False, **where)
        self.key = Linear(dim, spec.inner_dim, bias=False, **where)
        self.value = Linear(dim, spec.inner_dim, bias=False, **where)
        self.gate = Linear(dim, spec.inner_dim, bias=False, **where)
        self.norm = GroupNorm(spec.inner_dim, spec.num_heads, spec.norm_eps, **where)
        self.out = Linear(spec.inner_dim, dim, bias=False, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] along each sequence."""
        inputs_PTD = self._shifted(x_TD, ctx)
        maps = (self.receptance, self.key, self.value)
        heads = (self.spec.num_heads, self.spec.head_dim)
        r_TNH, k_TNH, v_TNH = (
            project(input_TD).unflatten(-1, heads)
            for project, input_TD in zip(maps, inputs_PTD[:3], strict=True)
        )
        decay_TNH = self._log_decay(inputs_PTD)
        mixed_TNH = ctx.scan(self.layer, "matrix", self._recur, r_TNH, k_TNH, v_TNH, decay_TNH)
        return self.out(self.norm(mixed_TNH.flatten(1)) * F.silu(self.gate(inputs_PTD[3])))

    def _shifted(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Return each input's blend of a token and its predecessor, [P, T, D]."""
        change_TD = ctx.scan(self.layer, "shift", _shift, x_TD) - x_TD
        share_P1D = self.mix[:, None]
        if self.spec.shift_rank is None:
            return x_TD + change_TD * share_P1D
        low_TPR = self.shift_low(x_TD + change_TD * self.mix_low).tanh()
        low_PTR = low_TPR.unflatten(-1, (-1, self.spec.shift_rank)).transpose(0, 1)
        return x_TD + change_TD * (share_P1D + low_PTR @ self.shift_up)

    def _log_decay(self, inputs_PTD: Tensor) -> Tensor:
        """Return -exp(decay) of every token, [T, N, H], float32."""
        decay_TNH = self.decay.float().expand(inputs_PTD.shape[1], -1, -1)
        if self.spec.decay_rank is not None:
            change_TM = F.linear(self.decay_low(inputs_PTD[4]).tanh(), self.decay_up)
            decay_TNH = decay_TNH + change_TM.float().view_as(decay_TNH)
        return -decay_TNH.exp()

    def _recur(
        self, inputs_T: Sequence[Tensor], lengths: tuple[int, ...], initial_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        r_TNH, k_TNH, v_TNH, decay_TNH = inputs_T
        return matrix_wkv(r_TNH, k_TNH, v_TNH, decay_TNH, self.bonus, lengths, initial_B)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Spread decays, bonuses and shares over channels, as published for a middle layer."""
        place_M = torch.linspace(0, 1, self.spec.inner_dim)
        zigzag_M = torch.arange(len(place_M)).add(1).remainder(3).sub(1).mul(0.1)
        self.decay.copy_((-6 + 5 * place_M**1.35).view_as(self.decay))
        self.bonus.copy_((0.5 * (1 - place_M) + zigzag_M).view_as(self.bonus))
        self.mix.copy_((1 - torch.linspace(0, 1, self.mix.shape[1]).sqrt()).expand_as(self.mix))
        if self.spec.shift_rank is None:
            return
        self.mix_low.copy_(self.mix[0])
        for up in (self.shift_up, self.decay_up):
            values = torch.empty(up.shape, dtype=torch.float32)
            up.copy_(values.uniform_(-_SMALL, _SMALL, generator=generator))


def _shift(
    inputs_T: Sequence[Tensor], lengths: tuple[int, ...], initial_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    return token_shift(inputs_T[0], lengths, initial_B)
