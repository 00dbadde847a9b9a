"""Gemma 3, the text model (arXiv:2503.19786): five windowed layers to a full one, QK-norm.

Windowed and full layers have rotary parameters of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from weft.core.errors import UnsupportedError
from weft.spec.families.dense import FULL, WINDOWED, Defaults, attentions, by_kind
from weft.spec.families.fields import Fields
from weft.spec.families.gemma2 import gemma_attention, gemma_config, gemma_spec
from weft.spec.families.rotary import layered_rotary_to_hf
from weft.spec.model import ModelSpec
from weft.spec.rotary import RotarySpec

MODEL_TYPE = "gemma3_text"
MULTIMODAL_TYPE = "gemma3"
DEFAULTS = Defaults(
    theta=1_000_000.0,
    tied=True,
    context_length=131_072,
    activation="gelu_pytorch_tanh",
    head_dim=256,
)
LOCAL_THETA = 10_000.0
# Published files of models that also see leave out what is so, and keep these fields outside.
TEXT_DEFAULTS = {"vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4}
SHARED = ("eos_token_id", "bos_token_id", "pad_token_id", "tie_word_embeddings")


def from_hf(fields: Fields) -> ModelSpec:
    """Translate the ``config.json`` of a text model."""
    fields.require("attn_logit_softcapping")
    full = replace(gemma_attention(fields, DEFAULTS, layer_type=FULL), qk_norm="head")
    local = replace(
        full,
        rotary=_local_rotary(fields),
        window=fields.optional_integer("sliding_window", 4096),
    )
    every = fields.integer("sliding_window_pattern", 6)
    num_layers = fields.integer("num_hidden_layers")
    pattern = [FULL if (index + 1) % every == 0 else WINDOWED for index in range(num_layers)]
    mixers = by_kind(fields.layer_types(pattern), full=full, local=local)
    spec = gemma_spec(MODEL_TYPE, fields, mixers, DEFAULTS)
    return replace(spec, logit_softcap=fields.optional_number("final_logit_softcapping"))


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    mixers = attentions(spec)
    full = next((m.rotary for m in mixers if m.window is None), None)
    local = next((m.rotary for m in mixers if m.window is not None), None)
    rotary = layered_rotary_to_hf(
        {
            FULL: full or RotarySpec(theta=DEFAULTS.theta),
            WINDOWED: local or RotarySpec(theta=LOCAL_THETA),
        },
        FULL,
    )
    config = {**gemma_config(spec, "Gemma3ForCausalLM"), **rotary}
    return {**config, "rope_local_base_freq": config["rope_parameters"][WINDOWED]["rope_theta"]}


def multimodal_from_hf(fields: Fields) -> ModelSpec:
    """Translate the text part of a model that also sees; its images are left out."""
    text = fields.config.get("text_config")
    if not isinstance(text, Mapping):
        raise UnsupportedError("config.json: gemma3 without a text_config has no text model")
    shared = {name: fields.config[name] for name in SHARED if fields.config.get(name) is not None}
    return replace(from_hf(Fields({**TEXT_DEFAULTS, **shared, **text})), family=MULTIMODAL_TYPE)


def multimodal_to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Refuse: the part that sees is not here."""
    raise UnsupportedError(
        "the text part of a Gemma 3 that also sees is no such model alone",
        fix=f"save it as family {MODEL_TYPE!r}",
    )


def _local_rotary(fields: Fields) -> RotarySpec:
    parameters = fields.config.get("rope_parameters") or {}
    if isinstance(parameters.get(WINDOWED), Mapping):
        return fields.rotary(LOCAL_THETA, layer_type=WINDOWED)
    return RotarySpec(theta=fields.number("rope_local_base_freq", LOCAL_THETA))
