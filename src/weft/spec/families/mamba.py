"""Mamba (arXiv:2312.00752) and Falcon-Mamba (arXiv:2410.05355): mixers only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.families.dense import Defaults, decoder_config, decoder_spec
from weft.spec.families.fields import Fields
from weft.spec.families.mamba2 import CONTEXT_LENGTH
from weft.spec.model import LayerSpec, ModelSpec, NormSpec
from weft.spec.recurrent import MambaSpec

MODEL_TYPE, FALCON_TYPE = "mamba", "falcon_mamba"
ARCHITECTURES = {MODEL_TYPE: "MambaForCausalLM", FALCON_TYPE: "FalconMambaForCausalLM"}
DEFAULTS = Defaults(context_length=CONTEXT_LENGTH, tied=True)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a ``config.json`` of either."""
    fields.require("hidden_act", "silu")
    family, dim = fields.config["model_type"], fields.integer("hidden_size")
    rank = fields.config.get("time_step_rank", "auto")
    eps = fields.number("layer_norm_epsilon", 1e-5)
    mixer = MambaSpec(
        inner_dim=int(fields.number("expand", 2) * dim),
        step_rank=-(-dim // 16) if rank == "auto" else fields.integer("time_step_rank"),
        state_dim=fields.integer("state_size", 16),
        conv_kernel=fields.integer("conv_kernel", 4),
        conv_bias=fields.flag("use_conv_bias", True),
        bias=fields.flag("use_bias", False),
        inner_norm_eps=fields.number("mixer_rms_eps", 1e-6) if family == FALCON_TYPE else None,
    )
    layers = (LayerSpec(mixer, None),) * fields.integer("num_hidden_layers")
    spec = decoder_spec(family, fields, layers, DEFAULTS)
    return replace(spec, norm=NormSpec(eps=eps))


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    mixer = spec.layers[0].mixer
    if not isinstance(mixer, MambaSpec) or mixer.inner_dim % spec.dim:
        raise UnsupportedError("Mamba's channels are a multiple of the model's width")
    config = decoder_config(spec, ARCHITECTURES[spec.family])
    del config["rms_norm_eps"]
    if mixer.inner_norm_eps is not None:
        config["mixer_rms_eps"] = mixer.inner_norm_eps
    return {
        **config,
        "hidden_act": "silu",
        "layer_norm_epsilon": spec.norm.eps,
        "expand": mixer.inner_dim // spec.dim,
        "intermediate_size": mixer.inner_dim,
        "time_step_rank": mixer.step_rank,
        "state_size": mixer.state_dim,
        "conv_kernel": mixer.conv_kernel,
        "use_conv_bias": mixer.conv_bias,
        "use_bias": mixer.bias,
    }
