"""OLMo 3 (arXiv:2512.13961): OLMo 2 with three windowed layers to a full one.

Only the full layers have their rotary positions stretched.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from weft.spec.families.dense import FULL, WINDOWED, Defaults, attentions, by_kind, window_config
from weft.spec.families.fields import Fields
from weft.spec.families.olmo2 import olmo_attention, olmo_config, olmo_spec
from weft.spec.families.rotary import layered_rotary_to_hf
from weft.spec.model import ModelSpec
from weft.spec.rotary import RotarySpec

MODEL_TYPE = "olmo3"
DEFAULTS = Defaults(theta=500_000.0, eps=1e-5)


def from_hf(fields: Fields) -> ModelSpec:
    """Translate an OLMo 3 ``config.json``."""
    full = olmo_attention(fields, DEFAULTS, layer_type=FULL)
    local = replace(
        full,
        rotary=_local_rotary(fields),
        window=fields.optional_integer("sliding_window", 4096),
    )
    num_layers = fields.integer("num_hidden_layers")
    pattern = [FULL if (index + 1) % 4 == 0 else WINDOWED for index in range(num_layers)]
    mixers = by_kind(fields.layer_types(pattern), full=full, local=local)
    return olmo_spec(MODEL_TYPE, fields, mixers, DEFAULTS)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    mixers = attentions(spec)
    full = next((m.rotary for m in mixers if m.window is None), None)
    local = next((m.rotary for m in mixers if m.window is not None), None)
    default = full or local or RotarySpec(theta=DEFAULTS.theta)
    rotary = layered_rotary_to_hf({FULL: full or default, WINDOWED: local or default}, FULL)
    return {**olmo_config(spec, "Olmo3ForCausalLM"), **window_config(spec), **rotary}


def _local_rotary(fields: Fields) -> RotarySpec:
    if WINDOWED in (fields.config.get("rope_parameters") or {}):
        return fields.rotary(DEFAULTS.theta, layer_type=WINDOWED)
    return RotarySpec(theta=fields.number("rope_theta", DEFAULTS.theta))
