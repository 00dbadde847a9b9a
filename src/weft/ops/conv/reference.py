"""The short causal convolution, token by token. T tokens, B sequences, D channels, W taps."""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.linear_attention.reference import work_dtype


def short_conv(
    x_TD: Tensor,
    weight_DW: Tensor,
    bias_D: Tensor | None,
    lengths: tuple[int, ...],
    initial_BWD: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return y_t = sum_w weight_w x_{t - W + 1 + w} + bias, and the last W - 1 inputs."""
    num_before, work = weight_DW.shape[1] - 1, work_dtype(x_TD)
    inputs_TD, weight_WD = x_TD.to(work), weight_DW.T.to(work)
    outputs, finals = [], []
    for row, x_LD in enumerate(inputs_TD.split(lengths)):
        before_WD = inputs_TD.new_zeros(num_before, x_TD.shape[1])
        if initial_BWD is not None:
            before_WD = initial_BWD[row].to(work)
        seen_LD = torch.cat([before_WD, x_LD])
        for t in range(len(x_LD)):
            y_D = (seen_LD[t : t + num_before + 1] * weight_WD).sum(0)
            outputs.append(y_D if bias_D is None else y_D + bias_D)
        finals.append(seen_LD[len(seen_LD) - num_before :])
    return torch.stack(outputs).to(x_TD.dtype), torch.stack(finals).to(x_TD.dtype)
