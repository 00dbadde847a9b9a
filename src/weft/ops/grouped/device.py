"""torch's grouped product on CUDA. A rows, I inner, O outer width, E experts.

The counts stay on the device: no step waits for the host.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows must start at multiples of 16 bytes.
ALIGNMENT_BYTES = 16


def accepts(x_AI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, counts_E: Tensor) -> bool:
    """Return whether torch's kernel takes these: bfloat16 on CUDA, rows aligned, no autocast."""
    if x_AI.device.type != "cuda" or not hasattr(F, "grouped_mm"):
        return False
    widths = (x_AI.shape[1], weight_EOI.shape[1])
    return (
        x_AI.dtype == weight_EOI.dtype == torch.bfloat16
        and x_AI.is_contiguous()
        and weight_EOI.is_contiguous()
        and all(width * x_AI.element_size() % ALIGNMENT_BYTES == 0 for width in widths)
    )


def grouped_linear(
    x_AI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, counts_E: Tensor
) -> Tensor:
    """Run ``grouped_mm``; biases are gathered row by row."""
    ends_E = counts_E.cumsum(0).to(torch.int32)
    y_AO = F.grouped_mm(x_AI, weight_EOI.transpose(-2, -1), offs=ends_E)
    if bias_EO is None:
        return y_AO
    experts_A = torch.repeat_interleave(counts_E, output_size=x_AI.shape[0])
    return y_AO + bias_EO[experts_A]
