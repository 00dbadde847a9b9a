"""Rotary positions in plain torch. T tokens, N heads, H head width, R rotated pairs."""

from __future__ import annotations

import torch
from torch import Tensor


def apply_rotary(x_TNH: Tensor, cos_TR: Tensor, sin_TR: Tensor, layout: str) -> Tensor:
    """Turn pair r of every head by its token's angle; dimensions beyond 2 R stay.

    Layout "half" pairs dimension r with r + R, "interleaved" pairs 2 r with 2 r + 1.
    """
    num_pairs = cos_TR.shape[-1]
    cos_T1R, sin_T1R = cos_TR.unsqueeze(1), sin_TR.unsqueeze(1)
    turned_TNE, rest = x_TNH[..., : 2 * num_pairs], x_TNH[..., 2 * num_pairs :]
    if layout == "half":
        a, b = turned_TNE.chunk(2, dim=-1)
        out = torch.cat((a * cos_T1R - b * sin_T1R, b * cos_T1R + a * sin_T1R), dim=-1)
    else:
        a, b = turned_TNE[..., 0::2], turned_TNE[..., 1::2]
        out = torch.stack((a * cos_T1R - b * sin_T1R, b * cos_T1R + a * sin_T1R), -1).flatten(-2)
    out = out.to(x_TNH.dtype)
    return torch.cat((out, rest), dim=-1) if rest.shape[-1] else out


def apply_rotary_complex(x_TNH: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """Turn interleaved pairs as complex numbers: ``(a + i b) e^{i angle}``, the paper's notation.

    What layout "interleaved" gives, for heads that rotate whole.
    """
    pairs_TNR = torch.view_as_complex(x_TNH.float().unflatten(-1, (-1, 2)).contiguous())
    turns_T1R = torch.complex(cos_TR, sin_TR).unsqueeze(1)
    return torch.view_as_real(pairs_TNR * turns_T1R).flatten(-2).to(x_TNH.dtype)
