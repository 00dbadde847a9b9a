"""DeepSeek-V2 and V2-Lite (arXiv:2405.04434): latent attention, softmax routing."""

from __future__ import annotations

from typing import Any

from weft.spec.families.dense import Defaults
from weft.spec.families.fields import Fields
from weft.spec.families.latent import latent_config, latent_mixer, latent_spec, router_of
from weft.spec.ffn import RouterSpec
from weft.spec.model import ModelSpec

MODEL_TYPE = "deepseek_v2"
GREEDY, LIMITED = "greedy", "group_limited_greedy"


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a DeepSeek-V2 ``config.json``."""
    mixer, router = latent_mixer(fields), _router(fields)
    return latent_spec(
        MODEL_TYPE, fields, mixer, router, num_dense=0, num_shared=2, defaults=Defaults()
    )


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    return {
        **latent_config(spec, "DeepseekV2ForCausalLM"),
        "scoring_func": "softmax",
        "topk_method": GREEDY if router_of(spec).num_groups == 1 else LIMITED,
    }


def _router(fields: Fields) -> RouterSpec:
    fields.require("scoring_func", "softmax")
    fields.require("norm_topk_prob", False)
    limited = fields.choice("topk_method", {GREEDY: False, LIMITED: True}, GREEDY)
    return RouterSpec(
        normalise=False,
        weight_scale=fields.number("routed_scaling_factor", 1.0),
        num_groups=fields.integer("n_group") if limited else 1,
        num_kept_groups=fields.integer("topk_group") if limited else 1,
    )
