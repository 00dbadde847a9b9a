"""RMSNorm in plain torch. T tokens (any leading axes), D normalised width."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Normalise in float32, round to the input's type, then multiply by the weight.

    The order decides the last bit in bfloat16; this is the one of Hugging Face's Llama.
    """
    wide_TD = x_TD.to(torch.promote_types(x_TD.dtype, torch.float32))
    variance_T1 = wide_TD.square().mean(-1, keepdim=True)
    normed_TD = (wide_TD * torch.rsqrt(variance_T1 + eps)).to(x_TD.dtype)
    return (weight_D * normed_TD).to(x_TD.dtype)
