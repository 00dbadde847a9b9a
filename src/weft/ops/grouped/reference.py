"""A linear map per expert in plain torch. A rows, I inner, O outer width, E experts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped_linear(
    x_AI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, counts_E: Tensor
) -> Tensor:
    """Map the first ``counts_E[0]`` rows by expert 0, the next by expert 1, and so on."""
    groups = x_AI.split(counts_E.tolist())
    biases = [None] * len(groups) if bias_EO is None else bias_EO.unbind()
    return torch.cat(
        [F.linear(*group) for group in zip(groups, weight_EOI.unbind(), biases, strict=True)]
    )
