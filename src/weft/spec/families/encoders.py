"""Hugging Face ``config.json`` ↔ ``EncoderSpec`` and ``EncoderDecoderSpec``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from weft.core.errors import UnsupportedError, did_you_mean
from weft.spec.differences import differences
from weft.spec.encoder import EncoderDecoderSpec, EncoderSpec
from weft.spec.families import bert, t5
from weft.spec.families.fields import Fields

SpecT = TypeVar("SpecT", EncoderSpec, EncoderDecoderSpec)


class Family(NamedTuple, Generic[SpecT]):
    """The two directions of a family."""

    from_hf: Callable[[Fields], SpecT]
    to_hf: Callable[[SpecT], dict[str, Any]]


ENCODERS: dict[str, Family[EncoderSpec]] = {bert.MODEL_TYPE: Family(bert.from_hf, bert.to_hf)}
ENCODER_DECODERS: dict[str, Family[EncoderDecoderSpec]] = {
    t5.MODEL_TYPE: Family(t5.from_hf, t5.to_hf)
}


def encoder_from_hf(config: Mapping[str, Any]) -> EncoderSpec:
    """Translate the ``config.json`` of an encoder.

    Raises:
        UnsupportedError: unknown ``model_type`` or a field this family cannot express.
        CheckpointError: a required field is missing or of the wrong type.
    """
    return _family(str(config.get("model_type")), ENCODERS, "an encoder").from_hf(Fields(config))


def encoder_to_hf(spec: EncoderSpec) -> dict[str, Any]:
    """Translate back to the content of ``config.json``.

    Raises:
        UnsupportedError: the family cannot express the model.
    """
    return _checked(spec, _family(spec.family, ENCODERS, "an encoder"))


def encoder_decoder_from_hf(config: Mapping[str, Any]) -> EncoderDecoderSpec:
    """Translate the ``config.json`` of an encoder-decoder.

    Raises:
        UnsupportedError: unknown ``model_type`` or a field this family cannot express.
        CheckpointError: a required field is missing or of the wrong type.
    """
    model_type = str(config.get("model_type"))
    return _family(model_type, ENCODER_DECODERS, "an encoder-decoder").from_hf(Fields(config))


def encoder_decoder_to_hf(spec: EncoderDecoderSpec) -> dict[str, Any]:
    """Translate back to the content of ``config.json``.

    Raises:
        UnsupportedError: the family cannot express the model.
    """
    return _checked(spec, _family(spec.family, ENCODER_DECODERS, "an encoder-decoder"))


def _family(name: str, families: Mapping[str, Family[SpecT]], what: str) -> Family[SpecT]:
    if name not in families:
        raise UnsupportedError(
            f"model type {name!r} is not supported as {what}", fix=did_you_mean(name, families)
        )
    return families[name]


def _checked(spec: SpecT, family: Family[SpecT]) -> dict[str, Any]:
    """Write a configuration and refuse it unless it reads back as the same specification."""
    config = family.to_hf(spec)
    # A checkpoint may lack the pooler; that is seen in its tensors, not in its configuration.
    lost = [
        difference
        for difference in differences(spec, family.from_hf(Fields(config)))
        if not difference.startswith("pooler ")
    ]
    if lost:
        raise UnsupportedError(
            f"family {spec.family!r} cannot express this model: {'; '.join(lost[:3])}"
        )
    return config
