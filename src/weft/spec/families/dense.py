"""What Llama-like dense families share in ``config.json``."""

from __future__ import annotations

from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.attention import AttentionSpec
from weft.spec.families.fields import Fields, rotary_to_hf
from weft.spec.ffn import MLPSpec
from weft.spec.model import LayerSpec, ModelSpec, NormSpec


def dense_spec(
    family: str, fields: Fields, attention: AttentionSpec, *, mlp_bias: bool = False
) -> ModelSpec:
    """Build a decoder of equal layers from the common fields."""
    fields.require("hidden_act", "silu")
    mlp = MLPSpec(fields.integer("intermediate_size"), bias=mlp_bias)
    return ModelSpec(
        family=family,
        vocab_size=fields.integer("vocab_size"),
        dim=fields.integer("hidden_size"),
        layers=(LayerSpec(attention, mlp),) * fields.integer("num_hidden_layers"),
        norm=NormSpec(eps=fields.number("rms_norm_eps", 1e-6)),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        context_length=fields.integer("max_position_embeddings", 2048),
        bos_id=fields.token_id("bos_token_id"),
        eos_ids=fields.token_ids("eos_token_id"),
        pad_id=fields.token_id("pad_token_id"),
    )


def dense_config(spec: ModelSpec, *, model_type: str, architecture: str) -> dict[str, Any]:
    """Write the common fields.

    Raises:
        UnsupportedError: the layers differ from each other or use what the family lacks.
    """
    if len(set(spec.layers)) != 1:
        raise UnsupportedError(f"{model_type} needs equal layers; this model's layers differ")
    attention, mlp = spec.layers[0].mixer, spec.layers[0].ffn
    if attention.rotary is None or attention.rotary.dim not in (None, attention.head_dim):
        raise UnsupportedError(f"{model_type} rotates whole heads; this model does not")
    if attention.rotary.layout != "half" or attention.scale is not None:
        raise UnsupportedError(f"{model_type} has the 'half' rotary layout and the default scale")
    if attention.window is not None or not mlp.gated or mlp.activation != "silu":
        raise UnsupportedError(f"{model_type} has full attention and a SwiGLU feed-forward part")
    eos: int | list[int] | None = list(spec.eos_ids) if len(spec.eos_ids) > 1 else None
    if len(spec.eos_ids) == 1:
        eos = spec.eos_ids[0]
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.dim,
        "intermediate_size": mlp.hidden_dim,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "head_dim": attention.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": spec.context_length,
        "rms_norm_eps": spec.norm.eps,
        "tie_word_embeddings": spec.tie_embeddings,
        "bos_token_id": spec.bos_id,
        "eos_token_id": eos,
        "pad_token_id": spec.pad_id,
        "attention_dropout": 0.0,
        "use_cache": True,
        **rotary_to_hf(attention.rotary),
    }
