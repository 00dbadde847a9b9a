"""Gated units. F inner width."""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops.activation.functions import ACTIVATIONS
from weft.ops.activation.stable import stable_sigmoid, stable_tanh
from weft.ops.functional import swiglu

CLAMP_SLOPE, CLAMP_LIMIT = 1.702, 7.0
"""Slope of the gate's sigmoid and largest size of gate and up in gpt-oss."""
SITU_GATE, SITU_UP = 4.0, 25.0
"""Bounds of gate and up in Kimi K3."""


def gated_unit(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """Return act(gate) ⊙ up, both [..., F].

    GLU is ``sigmoid`` (Dauphin et al. 2017, arXiv:1612.08083), SwiGLU ``silu``, GEGLU ``gelu``,
    ReGLU ``relu``, bilinear ``identity`` (Shazeer 2020, arXiv:2002.05202). The two sides are two
    linear maps of the same input. "clamped_swish" is gpt-oss's: see ``clamped_swiglu``; "situ" is
    Kimi K3's: see ``situ_glu``.
    """
    if activation == "situ":
        return situ_glu(gate, up)
    if activation == "clamped_swish":
        return clamped_swiglu(gate, up)
    return ACTIVATIONS[activation](gate) * up


def clamped_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return gate σ(1.702 gate) ⊙ (up + 1), the gate at most 7 and up between -7 and 7.

    Source: gpt-oss-120b and gpt-oss-20b model card, arXiv:2508.10925.
    """
    gate = CLAMP_SLOPE * gate.clamp(max=CLAMP_LIMIT)
    up = up.clamp(-CLAMP_LIMIT, CLAMP_LIMIT) + 1
    # As SwiGLU, for its kernel: the same bits wherever a row stands.
    return swiglu(torch.cat((gate, up), dim=-1)) / CLAMP_SLOPE


def situ_glu(gate: Tensor, up: Tensor) -> Tensor:
    """Return 4 tanh(gate / 4) σ(gate) ⊙ 25 tanh(up / 25), in float32 or wider.

    SiTU-GLU is SwiGLU near zero and at most 100 anywhere, which float16 and bfloat16 hold.

    Source: Kimi K3 (Moonshot AI), as its open implementations read ``beta`` and ``linear_beta``.
    """
    wide = torch.promote_types(gate.dtype, torch.float32)
    g, u = gate.to(wide), up.to(wide)
    bounded = SITU_GATE * stable_tanh(g / SITU_GATE) * stable_sigmoid(g)
    return (bounded * SITU_UP * stable_tanh(u / SITU_UP)).to(gate.dtype)
