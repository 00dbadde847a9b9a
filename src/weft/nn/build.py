"""Which module each description becomes. A new mixer or feed-forward part adds one line."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from weft.core.errors import UnsupportedError
from weft.nn.attention import Attention
from weft.nn.latent.attention import LatentAttention
from weft.nn.mlp import MLP
from weft.nn.moe.layer import build_moe
from weft.nn.recurrent.gated_delta_net import GatedDeltaNet
from weft.nn.recurrent.kimi_delta import KimiDelta
from weft.nn.recurrent.linear_attention import LinearAttention
from weft.nn.recurrent.mamba import Mamba
from weft.nn.recurrent.mamba2 import Mamba2
from weft.nn.recurrent.matrix_rwkv import MatrixRWKV
from weft.nn.recurrent.rwkv import RWKV, ChannelMix
from weft.nn.recurrent.short_conv import ShortConv
from weft.spec import (
    AttentionSpec,
    ChannelMixSpec,
    FFNSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    MixerSpec,
    MLASpec,
    MLPSpec,
    MoESpec,
    NormSpec,
    RWKVSpec,
    ShortConvSpec,
)

MIXERS: dict[type, type[nn.Module]] = {
    AttentionSpec: Attention,
    MLASpec: LatentAttention,
    LinearAttentionSpec: LinearAttention,
    GatedDeltaNetSpec: GatedDeltaNet,
    KimiDeltaSpec: KimiDelta,
    MambaSpec: Mamba,
    Mamba2Spec: Mamba2,
    RWKVSpec: RWKV,
    MatrixRWKVSpec: MatrixRWKV,
    ShortConvSpec: ShortConv,
}
FFNS: dict[type, Callable[..., nn.Module]] = {
    MLPSpec: MLP,
    MoESpec: build_moe,
    ChannelMixSpec: ChannelMix,
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
