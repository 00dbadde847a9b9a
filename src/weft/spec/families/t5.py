"""T5 (Raffel et al. 2020, arXiv:1910.10683), v1.0 with relu and v1.1 with gated gelu.

The head of v1.0 is the embedding and its input is scaled by D ** -0.5; v1.1 has a head of its
own and no scale. Scores are not divided by the root of the head width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.attention import AttentionSpec
from weft.spec.encoder import EncoderDecoderSpec, EncoderSpec
from weft.spec.families.fields import Fields
from weft.spec.families.parts import first_parts
from weft.spec.ffn import Activation, MLPSpec
from weft.spec.model import LayerSpec, ModelSpec, NormSpec
from weft.spec.rotary import RelativeBiasSpec

MODEL_TYPE = "t5"
# Their feed_forward_proj: our activation and whether it is gated. "gated-gelu" is the tanh form.
FEED_FORWARD: dict[str, tuple[Activation, bool]] = {
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "gelu_new": ("gelu_tanh", False),
    "gated-gelu": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
    "gated-relu": ("relu", True),
}


def from_hf(fields: Fields) -> EncoderDecoderSpec:
    """Translate a T5 ``config.json``."""
    fields.require("is_encoder_decoder", True)
    fields.require("feed_forward_proj", *FEED_FORWARD)
    tied = fields.flag("tie_word_embeddings", True)
    attention, mlp = _attention(fields), _mlp(fields)
    num_layers, pad_id = fields.integer("num_layers"), fields.token_id("pad_token_id")
    decoder = ModelSpec(
        family=MODEL_TYPE,
        vocab_size=fields.integer("vocab_size"),
        dim=fields.integer("d_model"),
        layers=(_decoder_layer(attention, mlp),) * fields.integer("num_decoder_layers", num_layers),
        norm=NormSpec(eps=fields.number("layer_norm_epsilon", 1e-6)),
        tie_embeddings=tied,
        context_length=fields.integer("n_positions", 512),
        eos_ids=fields.token_ids("eos_token_id"),
        pad_id=pad_id,
    )
    encoder = EncoderSpec(
        family=MODEL_TYPE,
        vocab_size=decoder.vocab_size,
        dim=decoder.dim,
        layers=(LayerSpec(attention, mlp),) * num_layers,
        norm=decoder.norm,
        context_length=decoder.context_length,
        pad_id=pad_id,
    )
    scaled = fields.flag("scale_decoder_outputs", tied)
    return EncoderDecoderSpec(
        encoder,
        decoder,
        start_id=fields.integer("decoder_start_token_id", pad_id or 0),
        output_scale=decoder.dim**-0.5 if scaled else None,
    )


def to_hf(spec: EncoderDecoderSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    encoder, decoder = spec.encoder, spec.decoder
    attention, mlp = first_parts(encoder.layers)
    relative = attention.relative
    kinds = {kind: name for name, kind in FEED_FORWARD.items()}
    if relative is None:
        raise UnsupportedError("T5 has a relative position bias; this model has none")
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": MODEL_TYPE,
        "is_encoder_decoder": True,
        "vocab_size": decoder.vocab_size,
        "d_model": decoder.dim,
        "d_kv": attention.head_dim,
        "d_ff": mlp.hidden_dim,
        "num_layers": encoder.num_layers,
        "num_decoder_layers": decoder.num_layers,
        "num_heads": attention.num_heads,
        "relative_attention_num_buckets": relative.num_buckets,
        "relative_attention_max_distance": relative.max_distance,
        "layer_norm_epsilon": decoder.norm.eps,
        "feed_forward_proj": kinds.get((mlp.activation, mlp.gated)),
        "dropout_rate": 0.0,
        "tie_word_embeddings": decoder.tie_embeddings,
        "scale_decoder_outputs": spec.output_scale is not None,
        "n_positions": decoder.context_length,
        "decoder_start_token_id": spec.start_id,
        "bos_token_id": None,
        "eos_token_id": decoder.eos_ids[0] if len(decoder.eos_ids) == 1 else list(decoder.eos_ids),
        "pad_token_id": decoder.pad_id,
    }


def _attention(fields: Fields) -> AttentionSpec:
    num_heads = fields.integer("num_heads")
    relative = RelativeBiasSpec(
        fields.integer("relative_attention_num_buckets", 32),
        fields.integer("relative_attention_max_distance", 128),
    )
    return AttentionSpec(
        num_heads,
        num_heads,
        fields.integer("d_kv"),
        rotary=None,
        scale=1.0,
        causal=False,
        relative=relative,
    )


def _mlp(fields: Fields) -> MLPSpec:
    activation, gated = FEED_FORWARD[fields.config.get("feed_forward_proj") or "relu"]
    return MLPSpec(fields.integer("d_ff"), activation, gated=gated)


def _decoder_layer(attention: AttentionSpec, mlp: MLPSpec) -> LayerSpec:
    """Return the decoder's layer: causal, and with attention to the encoder without bias."""
    mixer = dataclasses.replace(attention, causal=True)
    return LayerSpec(mixer, mlp, cross=dataclasses.replace(attention, relative=None))
