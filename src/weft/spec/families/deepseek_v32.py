"""DeepSeek-V3.2 (2025) and GLM-5: DeepSeek-V3 with sparse attention by a lightning indexer."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from weft.core.errors import UnsupportedError
from weft.spec.families.deepseek_v3 import ROUTING
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
from weft.spec.latent import IndexerSpec
from weft.spec.model import ModelSpec

MODEL_TYPE = "deepseek_v32"
DEFAULTS = Defaults(context_length=163_840)


class Variant(NamedTuple):
    """In what the families of this layout differ."""

    architecture: str
    num_index_heads: int
    index_layout: Literal["half", "interleaved"]


VARIANTS = {
    MODEL_TYPE: Variant("DeepseekV32ForCausalLM", 64, "half"),
    "glm_moe_dsa": Variant("GlmMoeDsaForCausalLM", 32, "interleaved"),
}


def from_hf(fields: Fields) -> ModelSpec:
    """Translate a ``config.json``; the multi-token prediction modules are left out."""
    family = str(fields.config["model_type"])
    _refuse_shared_selections(fields)
    fields.require("rope_interleave", True)
    indexer = IndexerSpec(
        num_heads=fields.integer("index_n_heads", VARIANTS[family].num_index_heads),
        head_dim=fields.integer("index_head_dim", 128),
        top_k=fields.integer("index_topk", 2048),
        rotary_layout=VARIANTS[family].index_layout,
    )
    mixer, router = latent_mixer(fields, indexer=indexer), sigmoid_router(fields)
    return latent_spec(family, fields, mixer, router, num_dense=3, num_shared=1, defaults=DEFAULTS)


def to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to ``config.json``."""
    indexer = attention_of(spec).indexer
    if indexer is None:
        raise UnsupportedError(f"{spec.family} has an indexer", fix="use family deepseek_v3")
    return {
        **latent_config(spec, VARIANTS[spec.family].architecture),
        **ROUTING,
        MTP_FIELD: spec.num_mtp_layers,
        "index_n_heads": indexer.num_heads,
        "index_head_dim": indexer.head_dim,
        "index_topk": indexer.top_k,
    }


def _refuse_shared_selections(fields: Fields) -> None:
    """Layers that reuse the selection of an earlier one (arXiv:2603.12201) have no description."""
    fields.require("index_topk_freq", 1)
    fields.require("index_topk_pattern")
    kinds = fields.config.get("indexer_types")
    if kinds is not None and set(kinds) != {"full"}:
        raise UnsupportedError(
            f"config.json: indexer_types is {kinds!r}; every layer must select for itself ('full')"
        )
