"""LFM2 (arXiv:2511.23404): gated short convolutions, and attention in some layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.attention import AttentionSpec
from weft.spec.families.dense import FULL, Defaults, decoder_config, decoder_spec, dense_attention
from weft.spec.families.fields import Fields
from weft.spec.families.rotary import rotary_to_hf
from weft.spec.ffn import MLPSpec
from weft.spec.model import LayerSpec, ModelSpec, NormSpec
from weft.spec.recurrent import ShortConvSpec

MODEL_TYPE = "lfm2"
CONV = "conv"
DEFAULTS = Defaults(theta=1_000_000.0, tied=True, context_length=128_000)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate an LFM2 ``config.json``."""
    dim = fields.integer("hidden_size")
    attention = replace(dense_attention(fields, DEFAULTS), qk_norm="head")
    conv = ShortConvSpec(dim, fields.integer("conv_L_cache", 3), fields.flag("conv_bias", False))
    num_layers = fields.integer("num_hidden_layers")
    full = fields.config.get("full_attn_idxs")
    full = range(num_layers) if full is None else full
    kinds = fields.layer_types([FULL if index in full else CONV for index in range(num_layers)])
    mixers = {FULL: attention, CONV: conv}
    for kind in set(kinds) - set(mixers):
        raise UnsupportedError(
            f"config.json: layer_types has {kind!r}; this family supports {FULL!r}, {CONV!r}"
        )
    mlp = MLPSpec(_width(fields))
    layers = tuple(LayerSpec(mixers[kind], mlp) for kind in kinds)
    tied = fields.flag("tie_embedding", fields.flag("tie_word_embeddings", True))
    spec = decoder_spec(MODEL_TYPE, fields, layers, DEFAULTS)
    eps = fields.number("norm_eps", 1e-5)
    return replace(spec, norm=NormSpec(eps=eps), tie_embeddings=tied)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    mixers, mlp = [layer.mixer for layer in spec.layers], spec.layers[0].ffn
    attention = next((m for m in mixers if isinstance(m, AttentionSpec)), None)
    conv = next((m for m in mixers if isinstance(m, ShortConvSpec)), ShortConvSpec(spec.dim))
    if attention is None or attention.rotary is None or not isinstance(mlp, MLPSpec):
        raise UnsupportedError("LFM2 has rotary attention in some layers and dense MLPs")
    config = decoder_config(spec, "Lfm2ForCausalLM")
    del config["rms_norm_eps"]
    return {
        **config,
        "norm_eps": spec.norm.eps,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        **rotary_to_hf(attention.rotary, attention.head_dim),
        "layer_types": [FULL if isinstance(mixer, AttentionSpec) else CONV for mixer in mixers],
        "full_attn_idxs": [i for i, m in enumerate(mixers) if isinstance(m, AttentionSpec)],
        "conv_L_cache": conv.kernel,
        "conv_bias": conv.bias,
        "intermediate_size": mlp.hidden_dim,
        "block_auto_adjust_ff_dim": False,
    }


def _width(fields: Fields) -> int:
    """Return the inner width, which the file may give as what it is rounded from."""
    width = fields.integer("block_ff_dim", fields.integer("intermediate_size", 12_288))
    if not fields.flag("block_auto_adjust_ff_dim", True):
        return width
    width = int(fields.number("block_ffn_dim_multiplier", 1.0) * int(2 * width / 3))
    multiple = fields.integer("block_multiple_of", 256)
    return -(-width // multiple) * multiple
