"""The short causal convolution in front of a recurrence. T tokens, D channels, W taps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.ops.recurrent import short_conv


class CausalConv(nn.Module):
    """One filter per channel over the last W tokens; the state "conv" holds W - 1 inputs."""

    def __init__(
        self,
        num_channels: int,
        num_taps: int,
        *,
        layer: int,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.layer = layer
        self.weight = nn.Parameter(torch.empty(num_channels, num_taps, **where))
        self.bias = nn.Parameter(torch.zeros(num_channels, **where)) if bias else None

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Filter [T, D] along each sequence."""
        return ctx.scan(self.layer, "conv", self._filter, x_TD)

    def _filter(
        self, inputs_T: Sequence[Tensor], lengths: tuple[int, ...], initial_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return short_conv(inputs_T[0], self.weight, self.bias, lengths, initial_B)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Draw taps uniformly within 1 / sqrt(W), as torch's own convolutions do."""
        bound = self.weight.shape[1] ** -0.5
        values = torch.empty(self.weight.shape, dtype=torch.float32)
        self.weight.copy_(values.uniform_(-bound, bound, generator=generator))
        if self.bias is not None:
            self.bias.zero_()

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, taps={self.weight.shape[1]}"
