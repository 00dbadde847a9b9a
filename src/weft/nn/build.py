"""Which module each description becomes. A new mixer or feed-forward part adds one line."""

from __future__ import annotations

import torch
from torch import nn

from weft.core.errors import UnsupportedError
from weft.nn.attention import Attention
from weft.nn.mlp import MLP
from weft.spec import AttentionSpec, FFNSpec, MixerSpec, MLPSpec, NormSpec

MIXERS: dict[type, type[nn.Module]] = {
    AttentionSpec: Attention,
}
FFNS: dict[type, type[nn.Module]] = {
    MLPSpec: MLP,
}


def build_mixer(
    dim: int,
    spec: MixerSpec,
    *,
    layer: int,
    norm: NormSpec,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Return the mixer of layer ``layer``; called as ``mixer(x_TD, ctx)``."""
    module = MIXERS.get(type(spec))
    if module is None:
        raise UnsupportedError(f"there is no module for {type(spec).__name__}")
    return module(dim, spec, layer=layer, norm=norm, device=device, dtype=dtype)


def build_ffn(
    dim: int,
    spec: FFNSpec,
    *,
    layer: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Return the feed-forward part of layer ``layer``; called as ``ffn(x_TD, ctx)``."""
    module = FFNS.get(type(spec))
    if module is None:
        raise UnsupportedError(f"there is no module for {type(spec).__name__}")
    return module(dim, spec, layer=layer, device=device, dtype=dtype)
