"""The factor on attention scores, moved into the weights of the queries.

T5's layout has no such factor, and models learn worse without: scores of random queries and keys
of width H have a standard deviation of sqrt(H), their softmax starts saturated, and attention from
target to source hardly gets a gradient. So models are trained with the factor and saved without.
"""

from __future__ import annotations

import copy
import dataclasses

import torch

from weft.models.encoder_decoder import EncoderDecoder
from weft.nn.attention import Attention
from weft.nn.cross_attention import CrossAttention
from weft.spec import AttentionSpec, EncoderDecoderSpec, LayerSpec


@torch.no_grad()
def fold_scale(model: EncoderDecoder) -> EncoderDecoder:
    """Return an equal model whose scores have the factor 1; the given one stays as it is.

    Powers of two, such as the factor of heads of width 64, change no bit of the results.
    """
    folded = copy.deepcopy(model)
    for module in folded.modules():
        if isinstance(module, Attention):
            parts = [module.qkv.weight] if module.qkv.bias is None else [*module.qkv.parameters()]
            queries = [part[: module.spec.query_dim] for part in parts]
        elif isinstance(module, CrossAttention):
            queries = list(module.q.parameters())
        else:
            continue
        for values in queries:
            values *= module.spec.softmax_scale
        module.spec = dataclasses.replace(module.spec, scale=1.0)
    folded.spec = _unscaled(model.spec)
    folded.encoder.spec, folded.decoder.spec = folded.spec.encoder, folded.spec.decoder
    return folded


def _unscaled(spec: EncoderDecoderSpec) -> EncoderDecoderSpec:
    encoder, decoder = spec.encoder, spec.decoder
    return dataclasses.replace(
        spec,
        encoder=dataclasses.replace(encoder, layers=tuple(map(_unscaled_layer, encoder.layers))),
        decoder=dataclasses.replace(decoder, layers=tuple(map(_unscaled_layer, decoder.layers))),
    )


def _unscaled_layer(layer: LayerSpec) -> LayerSpec:
    assert isinstance(layer.mixer, AttentionSpec)
    cross = None if layer.cross is None else dataclasses.replace(layer.cross, scale=1.0)
    mixer = dataclasses.replace(layer.mixer, scale=1.0)
    return dataclasses.replace(layer, mixer=mixer, cross=cross)
