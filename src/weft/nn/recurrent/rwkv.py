"""RWKV-4 (Peng et al. 2023, arXiv:2305.13048). T tokens, D model width, A channels of the average.

Both parts mix each token with the one before it, by a learnt share per channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.ops.recurrent import token_shift, wkv
from weft.spec import ChannelMixSpec, NormSpec, RWKVSpec

Shape = tuple[int, ...]


class RWKV(nn.Module):
    """Time mixing: a decaying softmax average of values, gated by a receptance.

    ``mix`` holds the present token's shares for key, value and receptance.
    """

    def __init__(
        self,
        dim: int,
        spec: RWKVSpec,
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
        self.mix = nn.Parameter(torch.full((3, dim), 0.5, **where))
        self.decay = nn.Parameter(torch.zeros(spec.attention_dim, **where))
        self.bonus = nn.Parameter(torch.zeros(spec.attention_dim, **where))
        self.key = Linear(dim, spec.attention_dim, bias=False, **where)
        self.value = Linear(dim, spec.attention_dim, bias=False, **where)
        self.receptance = Linear(dim, spec.attention_dim, bias=False, **where)
        self.out = Linear(spec.attention_dim, dim, bias=False, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Mix [T, D] along each sequence."""
        key_TD, value_TD, receptance_TD = _mixed(x_TD, self.mix, ctx, self.layer, "shift")
        k_TA, v_TA = self.key(key_TD), self.value(value_TD)
        average_TA = ctx.scan(self.layer, "average", self._recur, k_TA, v_TA)
        return self.out(self.receptance(receptance_TD).sigmoid() * average_TA)

    def _recur(
        self, inputs_T: Sequence[Tensor], lengths: Shape, initial_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        k_TA, v_TA = inputs_T
        return wkv(self.decay.float().exp(), self.bonus, k_TA, v_TA, lengths, initial_B)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Spread decays and shares over the channels, as the paper's appendix E does."""
        place_A = torch.linspace(0, 1, len(self.decay))
        self.decay.copy_(-5 + 8 * place_A**0.7)
        zigzag_A = torch.arange(len(self.bonus)).add(1).remainder(3).sub(1).mul(0.5)
        self.bonus.copy_(zigzag_A + torch.tensor(0.3).log())
        self.mix.copy_(torch.linspace(0, 1, self.mix.shape[1]).expand_as(self.mix))


class ChannelMix(nn.Module):
    """Channel mixing: a squared-ReLU feed-forward part gated by a receptance."""

    def __init__(
        self,
        dim: int,
        spec: ChannelMixSpec,
        *,
        layer: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.layer = layer
        where = {"device": device, "dtype": dtype}
        self.mix = nn.Parameter(torch.full((2, dim), 0.5, **where))
        self.up = Linear(dim, spec.hidden_dim, bias=False, **where)
        self.down = Linear(spec.hidden_dim, dim, bias=False, **where)
        self.receptance = Linear(dim, dim, bias=False, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Transform each token of [T, D] beside the one before it."""
        key_TD, receptance_TD = _mixed(x_TD, self.mix, ctx, self.layer, "ffn_shift")
        value_TD = self.down(F.relu(self.up(key_TD)).square())
        return self.receptance(receptance_TD).sigmoid() * value_TD

    def init_parameters(self, generator: torch.Generator) -> None:
        """Spread the shares over the channels."""
        self.mix.copy_(torch.linspace(0, 1, self.mix.shape[1]).expand_as(self.mix))


def _mixed(x_TD: Tensor, mix_PD: Tensor, ctx: StepContext, layer: int, state: str) -> list[Tensor]:
    """Return a blend of each token with its predecessor for every row of shares."""
    before_TD = ctx.scan(layer, state, _shift, x_TD)
    return [x_TD * share_D + before_TD * (1 - share_D) for share_D in mix_PD]


def _shift(
    inputs_T: Sequence[Tensor], lengths: Shape, initial_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    return token_shift(inputs_T[0], lengths, initial_B)
