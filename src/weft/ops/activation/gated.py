"""Gated units. F inner width."""

from __future__ import annotations

from torch import Tensor

from weft.ops.activation.functions import ACTIVATIONS


def gated_unit(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """Return act(gate) ⊙ up, both [..., F].

    GLU is ``sigmoid`` (Dauphin et al. 2017, arXiv:1612.08083), SwiGLU ``silu``, GEGLU ``gelu``,
    ReGLU ``relu``, bilinear ``identity`` (Shazeer 2020, arXiv:2002.05202). The two sides are two
    linear maps of the same input.
    """
    return ACTIVATIONS[activation](gate) * up
