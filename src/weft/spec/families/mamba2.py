"""Mamba-2 (arXiv:2405.21060): mixers only, no feed-forward parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.families.dense import Defaults, decoder_config, decoder_spec
from weft.spec.families.fields import Fields
from weft.spec.model import LayerSpec, ModelSpec, NormSpec
from weft.spec.recurrent import Mamba2Spec

MODEL_TYPE = "mamba2"
# No position is ever counted, so only memory limits a sequence; published models saw 2048 tokens.
CONTEXT_LENGTH = 2048
DEFAULTS = Defaults(context_length=CONTEXT_LENGTH)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a Mamba-2 ``config.json``."""
    fields.require("hidden_act", "silu")
    eps = fields.number("layer_norm_epsilon", 1e-5)
    low, high = (_number(x) for x in fields.config.get("time_step_limit") or (0.0, float("inf")))
    mixer = Mamba2Spec(
        num_heads=fields.integer("num_heads", 128),
        head_dim=fields.integer("head_dim", 64),
        state_dim=fields.integer("state_size", 128),
        num_groups=fields.integer("n_groups", 8),
        conv_kernel=fields.integer("conv_kernel", 4),
        conv_bias=fields.flag("use_conv_bias", True),
        bias=fields.flag("use_bias", False),
        norm_eps=eps,
        time_step_limit=(low, high),
    )
    layers = (LayerSpec(mixer, None),) * fields.integer("num_hidden_layers")
    spec = decoder_spec(MODEL_TYPE, fields, layers, DEFAULTS)
    return replace(spec, norm=NormSpec(eps=eps))


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    mixer = spec.layers[0].mixer
    if not isinstance(mixer, Mamba2Spec) or mixer.inner_dim % spec.dim:
        raise UnsupportedError("Mamba-2's heads together are a multiple of the model's width")
    low, high = mixer.time_step_limit
    unlimited = {"__float__": "Infinity"}  # JSON has no infinity; this is how transformers says it
    config = decoder_config(spec, "Mamba2ForCausalLM")
    del config["rms_norm_eps"]
    return {
        **config,
        "hidden_act": "silu",
        "layer_norm_epsilon": spec.norm.eps,
        "num_heads": mixer.num_heads,
        "head_dim": mixer.head_dim,
        "state_size": mixer.state_dim,
        "expand": mixer.inner_dim // spec.dim,
        "n_groups": mixer.num_groups,
        "conv_kernel": mixer.conv_kernel,
        "use_conv_bias": mixer.conv_bias,
        "use_bias": mixer.bias,
        "time_step_limit": [low, unlimited if high == float("inf") else high],
    }


def _number(value: Any) -> float:
    return float(value["__float__"] if isinstance(value, Mapping) else value)
