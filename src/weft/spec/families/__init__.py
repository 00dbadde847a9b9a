"""Hugging Face ``config.json`` ↔ ``ModelSpec``, one small file per family.

Each family gives ``from_hf(fields) -> ModelSpec`` and ``to_hf(spec) -> dict``. A field that
would change the mathematics and that the family cannot express is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from weft.core.errors import UnsupportedError, did_you_mean
from weft.spec.differences import differences
from weft.spec.families import (
    deepseek_v2,
    deepseek_v3,
    deepseek_v32,
    gemma2,
    gemma3,
    glm,
    glm4_moe,
    gpt2,
    gpt_oss,
    kimi_linear,
    latent,
    lfm2,
    llama,
    mamba,
    mamba2,
    minimax_m2,
    mistral,
    mixtral,
    olmo2,
    olmo3,
    phi3,
    qwen2,
    qwen3,
    qwen_hybrid,
    qwen_moe,
    rwkv,
    smollm3,
)
from weft.spec.families.fields import Fields
from weft.spec.ffn import MoESpec, RouterSpec
from weft.spec.model import ModelSpec


class Family(NamedTuple):
    """The two directions of a family.

    Attributes:
        from_hf: Reads a ``config.json``.
        to_hf: Writes one.
        exact: What is written must read back as the same specification, or it is refused.
    """

    from_hf: Callable[[Fields], ModelSpec]
    to_hf: Callable[[ModelSpec], dict[str, Any]]
    exact: bool = False


DENSE = (gemma2, gemma3, glm, gpt2, llama, mistral, olmo2, olmo3, phi3, qwen2, qwen3, smollm3)
RECURRENT = (kimi_linear, lfm2, mamba2, rwkv)
EXPERTS = (glm4_moe, gpt_oss, minimax_m2, mixtral)
LATENT = {
    deepseek_v2: (deepseek_v2.MODEL_TYPE,),
    deepseek_v3: tuple(deepseek_v3.ARCHITECTURES),
    deepseek_v32: tuple(deepseek_v32.VARIANTS),
}

FAMILIES: dict[str, Family] = {
    **{
        name: Family(family.from_hf, family.to_hf, exact=True)
        for family, names in LATENT.items()
        for name in names
    },
    **{family.MODEL_TYPE: Family(family.from_hf, family.to_hf, exact=True) for family in DENSE},
    glm.SANDWICH_TYPE: Family(glm.sandwich_from_hf, glm.sandwich_to_hf, exact=True),
    **{family.MODEL_TYPE: Family(family.from_hf, family.to_hf, exact=True) for family in EXPERTS},
    qwen_moe.QWEN2: Family(qwen_moe.from_hf_qwen2, qwen_moe.to_hf, exact=True),
    qwen_moe.QWEN3: Family(qwen_moe.from_hf_qwen3, qwen_moe.to_hf, exact=True),
    gemma3.MULTIMODAL_TYPE: Family(gemma3.multimodal_from_hf, gemma3.multimodal_to_hf),
    **{family.MODEL_TYPE: Family(family.from_hf, family.to_hf, exact=True) for family in RECURRENT},
    **dict.fromkeys(mamba.ARCHITECTURES, Family(mamba.from_hf, mamba.to_hf, exact=True)),
    **dict.fromkeys(
        qwen_hybrid.ARCHITECTURES, Family(qwen_hybrid.from_hf, qwen_hybrid.to_hf, exact=True)
    ),
    **dict.fromkeys(
        qwen_hybrid.MULTIMODAL, Family(qwen_hybrid.multimodal_from_hf, qwen_hybrid.to_hf)
    ),
}


def spec_from_hf(config: Mapping[str, Any]) -> ModelSpec:
    """Translate a ``config.json``.

    Raises:
        UnsupportedError: unknown ``model_type`` or a field this family cannot express.
        CheckpointError: a required field is missing or of the wrong type.
    """
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        raise UnsupportedError(
            f"config.json has model_type {model_type!r}, which is not supported",
            fix=did_you_mean(model_type, FAMILIES),
        )
    return FAMILIES[model_type].from_hf(Fields(config))


def with_mtp(spec: ModelSpec, config: Mapping[str, Any]) -> ModelSpec:
    """Return the specification with the multi-token prediction modules that the config names.

    ``spec_from_hf`` leaves them out: transformers does, and many configs name modules whose weights
    were not published.

    Raises:
        UnsupportedError: it names none.
    """
    num_modules = Fields(config).integer(latent.MTP_FIELD, 0)
    if num_modules < 1:
        raise UnsupportedError(
            f"config.json: {latent.MTP_FIELD} is {num_modules}; there is nothing to predict with",
            fix="load the model without multi-token prediction",
        )
    return replace(spec, num_mtp_layers=num_modules)


def spec_to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to the content of ``config.json``.

    Raises:
        UnsupportedError: the family's layout cannot say what the specification says.
    """
    if spec.family not in FAMILIES:
        raise UnsupportedError(
            f"there is no Hugging Face layout for family {spec.family!r}",
            fix=did_you_mean(spec.family, FAMILIES),
        )
    family = FAMILIES[spec.family]
    config = family.to_hf(spec)
    if family.exact:
        plain, again = (_for_inference(each) for each in (spec, family.from_hf(Fields(config))))
        if plain != again:
            raise UnsupportedError(
                f"no {spec.family} config.json can say this: {next(differences(plain, again))}",
                fix="change it or choose another family",
            )
    return config


def _for_inference(spec: ModelSpec) -> ModelSpec:
    """Leave out what ``with_mtp`` adds, and how routers are trained, which few files can say."""
    layers = (
        replace(layer, ffn=replace(layer.ffn, router=_untrained(layer.ffn.router)))
        if isinstance(layer.ffn, MoESpec)
        else layer
        for layer in spec.layers
    )
    return replace(spec, layers=tuple(layers), num_mtp_layers=0)


def _untrained(router: RouterSpec) -> RouterSpec:
    router = replace(router, aux_loss=0.0, aux_kind="load", z_loss=0.0, bias_rate=0.0)
    if router.noise_kind == "learnt":  # it has a weight of its own
        return router
    return replace(router, noise=0.0, noise_kind="gaussian")
