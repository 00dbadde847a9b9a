"""Hugging Face ``config.json`` ↔ ``ModelSpec``, one small file per family.

Each family gives ``from_hf(fields) -> ModelSpec`` and ``to_hf(spec) -> dict``. A field that
would change the mathematics and that the family cannot express is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from weft.core.errors import UnsupportedError, did_you_mean
from weft.spec.families import llama, qwen3
from weft.spec.families.fields import Fields
from weft.spec.model import ModelSpec


class Family(NamedTuple):
    """The two directions of a family."""

    from_hf: Callable[[Fields], ModelSpec]
    to_hf: Callable[[ModelSpec], dict[str, Any]]


FAMILIES: dict[str, Family] = {
    llama.MODEL_TYPE: Family(llama.from_hf, llama.to_hf),
    qwen3.MODEL_TYPE: Family(qwen3.from_hf, qwen3.to_hf),
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


def spec_to_hf(spec: ModelSpec) -> dict[str, Any]:
    """Translate back to the content of ``config.json``."""
    if spec.family not in FAMILIES:
        raise UnsupportedError(
            f"there is no Hugging Face layout for family {spec.family!r}",
            fix=did_you_mean(spec.family, FAMILIES),
        )
    return FAMILIES[spec.family].to_hf(spec)
