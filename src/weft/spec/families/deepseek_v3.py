"""DeepSeek-V3 and R1 (arXiv:2412.19437), Kimi K2 (arXiv:2507.20534), GLM-4.7-Flash.

Sigmoid routing with a balancing bias. Kimi K2 and GLM-4.7-Flash (``glm4_moe_lite``) have the same
fields under their own ``model_type``.
"""

from __future__ import annotations

from typing import Any

from weft.spec.families.dense import Defaults
from weft.spec.families.fields import Fields
from weft.spec.families.latent import (
    MTP_FIELD,
    attention_of,
    latent_config,
    latent_mixer,
    latent_spec,
    sigmoid_router,
)
from weft.spec.model import ModelSpec

MODEL_TYPE = "deepseek_v3"
# Those of the same layout, with their architectures and how many layers are dense by default.
ARCHITECTURES = {
    MODEL_TYPE: "DeepseekV3ForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
    "glm4_moe_lite": "Glm4MoeLiteForCausalLM",
}
NUM_DENSE = {MODEL_TYPE: 3, "kimi_k2": 3, "glm4_moe_lite": 1}
DEFAULTS = Defaults(context_length=4096)
ROUTING = {"scoring_func": "sigmoid", "topk_method": "noaux_tc"}


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a ``config.json``; the multi-token prediction modules are left out."""
    family = str(fields.config["model_type"])
    mixer = latent_mixer(
        fields, layout="interleaved" if fields.flag("rope_interleave", True) else "half"
    )
    return latent_spec(
        family,
        fields,
        mixer,
        sigmoid_router(fields),
        num_dense=NUM_DENSE[family],
        num_shared=1,
        defaults=DEFAULTS,
    )


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    rotary = attention_of(spec).rotary
    return {
        **latent_config(spec, ARCHITECTURES[spec.family]),
        **ROUTING,
        MTP_FIELD: spec.num_mtp_layers,
        "rope_interleave": rotary is None or rotary.layout == "interleaved",
    }
