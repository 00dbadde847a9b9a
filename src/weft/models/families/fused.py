"""Tensor names of families whose files hold merged projections as we do: GLM-4 and Phi-3."""

from __future__ import annotations

from weft.models.hf_keys import (
    Rule,
    affine,
    attention_rules,
    decoder_rules,
    norm_rules,
    pre_norm_rules,
)
from weft.spec import AttentionSpec, LayerSpec, ModelSpec

GLM4_NORMS = {
    "mixer_norm": "input_layernorm",
    "mixer_output_norm": "post_self_attn_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_output_norm": "post_mlp_layernorm",
}
MLP = (
    *affine("ffn.gate_up", "mlp.gate_up_proj", bias=False),
    *affine("ffn.down", "mlp.down_proj", bias=False),
)


def glm_rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map of GLM-4: gate and up are merged."""
    return decoder_rules(spec, _glm_layer)


def glm4_rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map of the GLM-4 models with norms on both sides of a branch."""
    return decoder_rules(spec, _glm4_layer)


def phi3_rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the key map of Phi-3: query, key and value are merged too."""
    return decoder_rules(spec, _phi3_layer)


def _glm_layer(layer: LayerSpec) -> tuple[Rule, ...]:
    assert isinstance(layer.mixer, AttentionSpec)
    return (*pre_norm_rules(), *attention_rules(layer.mixer), *MLP)


def _glm4_layer(layer: LayerSpec) -> tuple[Rule, ...]:
    assert isinstance(layer.mixer, AttentionSpec)
    return (*norm_rules(GLM4_NORMS), *attention_rules(layer.mixer), *MLP)


def _phi3_layer(layer: LayerSpec) -> tuple[Rule, ...]:
    merged = affine("mixer.qkv", "self_attn.qkv_proj", bias=False)
    return (
        *pre_norm_rules(), *merged, *affine("mixer.out", "self_attn.o_proj", bias=False), *MLP
    )  # fmt: skip
