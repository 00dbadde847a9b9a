"""BERT (Devlin et al. 2019, arXiv:1810.04805) and the sentence encoders built like it."""

from __future__ import annotations

from typing import Any

from weft.spec.attention import AttentionSpec
from weft.spec.encoder import EncoderSpec
from weft.spec.families.fields import Fields
from weft.spec.families.parts import first_parts
from weft.spec.ffn import Activation, MLPSpec
from weft.spec.model import LayerSpec, NormSpec
from weft.spec.rotary import LearnedPositions

MODEL_TYPE = "bert"
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}


def from_hf(fields: Fields) -> EncoderSpec:
    """Translate a BERT ``config.json``; ``BertForMaskedLM`` has a head and no pooler."""
    fields.require("position_embedding_type", "absolute")
    fields.require("is_decoder", False)
    fields.require("add_cross_attention", False)
    fields.require("tie_word_embeddings", True)
    fields.require("hidden_act", *ACTIVATIONS)
    dim, num_heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    activation = ACTIVATIONS[fields.config.get("hidden_act") or "gelu"]
    attention = AttentionSpec(
        num_heads, num_heads, dim // num_heads,
        rotary=None, qkv_bias=True, out_bias=True, causal=False,
    )  # fmt: skip
    mlp = MLPSpec(fields.integer("intermediate_size"), activation, gated=False, bias=True)
    masked_lm = "BertForMaskedLM" in (fields.config.get("architectures") or ())
    num_positions = fields.integer("max_position_embeddings", 512)
    return EncoderSpec(
        family=MODEL_TYPE,
        vocab_size=fields.integer("vocab_size"),
        dim=dim,
        layers=(LayerSpec(attention, mlp, norms="post"),) * fields.integer("num_hidden_layers"),
        norm=NormSpec(eps=fields.number("layer_norm_eps", 1e-12), kind="layer", bias=True),
        context_length=num_positions,
        pad_id=fields.token_id("pad_token_id"),
        positions=LearnedPositions(num_positions),
        embedding_norm=True,
        final_norm=False,
        num_token_types=fields.integer("type_vocab_size", 2),
        pooler=not masked_lm,
        masked_lm=activation if masked_lm else None,
    )


def to_hf(spec: EncoderSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    attention, mlp = first_parts(spec.layers)
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "architectures": ["BertModel" if spec.masked_lm is None else "BertForMaskedLM"],
        "model_type": MODEL_TYPE,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.dim,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": attention.num_heads,
        "intermediate_size": mlp.hidden_dim,
        "hidden_act": names.get(mlp.activation),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": spec.context_length,
        "position_embedding_type": "absolute",
        "type_vocab_size": spec.num_token_types,
        "layer_norm_eps": spec.norm.eps,
        "pad_token_id": spec.pad_id,
        "is_decoder": False,
        "tie_word_embeddings": True,
    }
