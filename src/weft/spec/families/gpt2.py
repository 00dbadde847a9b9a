"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases everywhere."""

from __future__ import annotations

from typing import Any

from weft.spec.attention import AttentionSpec
from weft.spec.families.dense import ACTIVATIONS, attentions, first_mlp
from weft.spec.families.fields import Fields
from weft.spec.ffn import MLPSpec
from weft.spec.model import LayerSpec, ModelSpec, NormSpec
from weft.spec.rotary import LearnedPositions

MODEL_TYPE = "gpt2"


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a GPT-2 ``config.json``."""
    fields.require("add_cross_attention", False)
    dim, num_heads = fields.integer("n_embd", 768), fields.integer("n_head", 12)
    context_length = fields.integer("n_positions", 1024)
    activation = fields.choice("activation_function", ACTIVATIONS, "gelu_new")
    hidden_dim = fields.integer("n_inner", 4 * dim)
    mlp = MLPSpec(hidden_dim, activation, gated=False, bias=True)
    layers = tuple(
        LayerSpec(_attention(fields, dim, num_heads, index), mlp)
        for index in range(fields.integer("n_layer", 12))
    )
    return ModelSpec(
        family=MODEL_TYPE,
        vocab_size=fields.integer("vocab_size", 50_257),
        dim=dim,
        layers=layers,
        norm=NormSpec(fields.number("layer_norm_epsilon", 1e-5), kind="layer", bias=True),
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        context_length=context_length,
        bos_id=fields.token_id("bos_token_id"),
        eos_ids=fields.token_ids("eos_token_id"),
        pad_id=fields.token_id("pad_token_id"),
        positions=LearnedPositions(context_length),
    )


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    mixers, mlp = attentions(spec), first_mlp(spec)
    scales = [mixer.softmax_scale for mixer in mixers]
    names = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": MODEL_TYPE,
        "vocab_size": spec.vocab_size,
        "n_embd": spec.dim,
        "n_layer": spec.num_layers,
        "n_head": mixers[0].num_heads,
        "n_inner": mlp.hidden_dim,
        "n_positions": spec.context_length,
        "activation_function": names.get(mlp.activation, mlp.activation),
        "layer_norm_epsilon": spec.norm.eps,
        "tie_word_embeddings": spec.tie_embeddings,
        "scale_attn_weights": mixers[0].scale != 1.0,
        "scale_attn_by_inverse_layer_idx": len(set(scales)) > 1,
        "bos_token_id": spec.bos_id,
        "eos_token_id": spec.eos_ids[0] if len(spec.eos_ids) == 1 else list(spec.eos_ids) or None,
        "pad_token_id": spec.pad_id,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _attention(fields: Fields, dim: int, num_heads: int, layer: int) -> AttentionSpec:
    head_dim = dim // num_heads
    scale = None if fields.flag("scale_attn_weights", True) else 1.0
    if fields.flag("scale_attn_by_inverse_layer_idx", False):
        scale = (head_dim**-0.5 if scale is None else scale) / (layer + 1)
    return AttentionSpec(
        num_heads, num_heads, head_dim, rotary=None, qkv_bias=True, out_bias=True, scale=scale
    )
