"""RWKV-4 (arXiv:2305.13048): time mixing and channel mixing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.families.dense import Defaults, decoder_config, decoder_spec
from weft.spec.families.fields import Fields
from weft.spec.ffn import ChannelMixSpec
from weft.spec.model import LayerSpec, ModelSpec, NormSpec
from weft.spec.recurrent import RWKVSpec

MODEL_TYPE = "rwkv"
# transformers gives the last norm this eps whatever the configuration says of the others.
EPS = 1e-5


def from_hf(fields: Fields) -> ModelSpec:
    """Translate an RWKV-4 ``config.json``.

    ``rescale_every`` halves the residual stream for float16's sake; it changes results by no more
    than the eps of the norms.
    """
    fields.require("layer_norm_epsilon", EPS)
    dim = fields.integer("hidden_size")
    mixer = RWKVSpec(dim, fields.integer("attention_hidden_size", dim))
    ffn = ChannelMixSpec(dim, fields.integer("intermediate_size", 4 * dim))
    layers = (LayerSpec(mixer, ffn),) * fields.integer("num_hidden_layers")
    defaults = Defaults(context_length=fields.integer("context_length", 1024))
    spec = decoder_spec(MODEL_TYPE, fields, layers, defaults)
    norm = NormSpec(eps=EPS, kind="layer", bias=True)
    return replace(spec, norm=norm, embedding_norm=True)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    mixer, ffn = spec.layers[0].mixer, spec.layers[0].ffn
    if not isinstance(mixer, RWKVSpec) or not isinstance(ffn, ChannelMixSpec):
        raise UnsupportedError("RWKV has time mixing and channel mixing in every layer")
    config = decoder_config(spec, "RwkvForCausalLM")
    del config["rms_norm_eps"], config["max_position_embeddings"]
    return {
        **config,
        "context_length": spec.context_length,
        "attention_hidden_size": mixer.attention_dim,
        "intermediate_size": ffn.hidden_dim,
        "layer_norm_epsilon": EPS,
        "rescale_every": 0,
    }
