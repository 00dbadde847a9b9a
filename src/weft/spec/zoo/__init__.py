"""Published models by name: their ``config.json`` as data, with their parameter counts.

``data/*.json`` holds, for each model, the fields of its public ``config.json`` that describe the
architecture, the exact number of parameters (tied weights once, buffers and multi-token prediction
modules left out), the number one token meets where it was published, and what the entry was
checked against (``source``). No weights, no network.

>>> config("llama-3.1-8b")["hidden_size"], parameters("llama-3.1-8b")
(4096, 8030261248)
"""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from weft.core.errors import ConfigError, UnsupportedError, did_you_mean
from weft.spec.encoder import EncoderDecoderSpec, EncoderSpec
from weft.spec.families import FAMILIES, spec_from_hf
from weft.spec.families.encoders import (
    ENCODER_DECODERS,
    ENCODERS,
    encoder_decoder_from_hf,
    encoder_from_hf,
)
from weft.spec.model import ModelSpec

__all__ = ["ZooEntry", "config", "entry", "names", "parameters", "spec", "spec_from_any_config"]


@dataclass(frozen=True)
class ZooEntry:
    """One published model.

    Attributes:
        name: Ours, in lower case, such as "qwen3-30b-a3b".
        config: Fields of its config.json.
        parameters: How many numbers it learns.
        active: How many of them one token meets; none where nothing was published.
        source: What the entry was checked against.
    """

    name: str
    config: dict[str, Any]
    parameters: int
    active: int | None
    source: str


@cache
def _entries() -> dict[str, dict[str, Any]]:
    folder = resources.files("weft.spec.zoo") / "data"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=str)
    return {
        name: fields
        for file in files
        for name, fields in json.loads(file.read_text(encoding="utf-8")).items()
    }


def names() -> tuple[str, ...]:
    """Return the names of all models, families together."""
    return tuple(_entries())


def entry(name: str) -> ZooEntry:
    """Return what is known of a model.

    Raises:
        ConfigError: there is none of this name; the nearest is named.
    """
    fields = _entries().get(name.lower())
    if fields is None:
        raise ConfigError(
            f"the zoo has no model {name!r}",
            fix=did_you_mean(
                name.lower(), names(), otherwise="choose one that `weft model list` shows"
            ),
        )
    return ZooEntry(
        name=name.lower(),
        config=copy.deepcopy(fields["config"]),
        parameters=fields["parameters"],
        active=fields.get("active"),
        source=fields["source"],
    )


def config(name: str) -> dict[str, Any]:
    """Return the fields of a model's config.json."""
    return entry(name).config


def parameters(name: str) -> int:
    """Return a model's published number of parameters."""
    return entry(name).parameters


def spec(name: str) -> ModelSpec | EncoderSpec | EncoderDecoderSpec:
    """Return the specification of a model.

    Raises:
        ConfigError: there is none of this name.
        UnsupportedError: its family cannot be expressed.
    """
    return spec_from_any_config(config(name))


def spec_from_any_config(
    config: dict[str, Any],
) -> ModelSpec | EncoderSpec | EncoderDecoderSpec:
    """Translate a config.json of a decoder, an encoder or both.

    Raises:
        UnsupportedError: unknown ``model_type`` or a field that cannot be expressed.
    """
    model_type = config.get("model_type")
    if model_type in ENCODERS:
        encoder = encoder_from_hf(config)
        # Only the tensors say whether there is a pooler; Hugging Face's BertModel has one.
        has_pooler = "BertModel" in (config.get("architectures") or ())
        return dataclasses.replace(encoder, pooler=has_pooler and encoder.masked_lm is None)
    if model_type in ENCODER_DECODERS:
        return encoder_decoder_from_hf(config)
    if model_type not in FAMILIES:
        raise UnsupportedError(
            f"config.json has model_type {model_type!r}, which is not supported",
            fix=did_you_mean(str(model_type), (*FAMILIES, *ENCODERS, *ENCODER_DECODERS)),
        )
    return spec_from_hf(config)
