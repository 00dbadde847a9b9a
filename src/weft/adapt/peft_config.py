"""``adapter_config.json``: what PEFT says of an adapter, and what of it we can compute.

A field that changes the mathematics and is not known here is refused by name; one that says
nothing (false, null, empty) is fine whatever it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.core.errors import CheckpointError, InputFileError, UnsupportedError

CONFIG_FILE = "adapter_config.json"

# Fields that say where the numbers came from, or that the names of the tensors say again.
_NEUTRAL = frozenset({
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_alpha", "lora_dropout", "lora_ga_config", "peft_version", "qalora_group_size", "r",
    "alpha_pattern", "rank_pattern", "revision", "runtime_config", "target_modules", "task_type",
    "use_rslora", "megatron_core",
})  # fmt: skip
# What the others ask for, and how to do without.
_REFUSED: Mapping[str, tuple[str, str]] = {
    "use_dora": ("DoRA, which rescales every row", "merge it with merge_and_unload()"),
    "modules_to_save": ("whole modules of its own", "merge it with merge_and_unload()"),
    "trainable_token_indices": ("embeddings of its own", "merge it with merge_and_unload()"),
    "target_parameters": (
        "parameters that are no linear layers, such as stacked experts",
        "train it on linear layers (target_modules)",
    ),
    "lora_bias": ("a bias of its own", "train it with lora_bias=False"),
    "layer_replication": ("a model with repeated layers", "build that model first"),
    "alora_invocation_tokens": ("a start in the middle of a prompt", "train a plain LoRA"),
}
# Initialisations that change the base model, so that the pairs alone mean nothing.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_HARMLESS_INITS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class PeftConfig:
    """The part of an ``adapter_config.json`` that its numbers depend on.

    Attributes:
        rank: Rank of pairs that no pattern names.
        alpha: Updates are scaled by alpha / rank.
        rank_stabilized: By alpha / sqrt(rank) instead (rsLoRA, Kalajdzievski 2023,
            arXiv:2312.03732).
        rank_pattern: Other ranks, by regular expression at the end of a layer's name.
        alpha_pattern: Other alphas, likewise.
        base: Name or folder of the base model.
    """

    rank: int
    alpha: float
    rank_stabilized: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    base: str | None = None

    @property
    def max_rank(self) -> int:
        """The largest rank that is named."""
        return max((self.rank, *self.rank_pattern.values()))

    def scale(self, layer: str, rank: int) -> float:
        """Return the factor of one layer's update."""
        alpha = self.alpha_pattern.get(_pattern_of(layer, self.alpha_pattern), self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)

    def rank_of(self, layer: str) -> int:
        """Return the rank that the file states for a layer."""
        return self.rank_pattern.get(_pattern_of(layer, self.rank_pattern), self.rank)


def read_config(folder: Path) -> PeftConfig:
    """Read and check the file.

    Raises:
        InputFileError: there is none, or it is no JSON object.
        UnsupportedError: it asks for something that is not computed here.
        CheckpointError: a rank or an alpha that is no number.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        raise InputFileError(
            f"{str(folder)!r} has no {CONFIG_FILE}",
            fix=f"give the folder of a PEFT adapter, with {CONFIG_FILE} and safetensors",
        )
    try:
        fields = json.loads(path.read_text())
    except ValueError as error:
        raise InputFileError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InputFileError(f"{path} holds no JSON object", fix="save the adapter again")
    _check(fields, path)
    try:
        return PeftConfig(
            rank=_positive(fields.get("r", 8)),
            alpha=float(fields.get("lora_alpha", 8)),
            rank_stabilized=bool(fields.get("use_rslora")),
            rank_pattern={k: _positive(v) for k, v in (fields.get("rank_pattern") or {}).items()},
            alpha_pattern={k: float(v) for k, v in (fields.get("alpha_pattern") or {}).items()},
            base=fields.get("base_model_name_or_path"),
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: a rank or an alpha is not usable: {error}", fix="save the adapter again"
        ) from error


def config_fields(
    config: PeftConfig, target_modules: list[str], *, transposed: bool
) -> dict[str, Any]:
    """Return what PEFT reads back; ``transposed`` is for models whose layers are Conv1D."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "use_rslora": config.rank_stabilized,
        "rank_pattern": dict(config.rank_pattern),
        "alpha_pattern": dict(config.alpha_pattern),
        "target_modules": target_modules,
        "fan_in_fan_out": transposed,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }


def _check(fields: Mapping[str, Any], path: Path) -> None:
    kind = fields.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(
            f"{path} describes an adapter of type {kind!r}", fix="use one of type 'LORA'"
        )
    bias = fields.get("bias", "none")
    if bias != "none":
        raise UnsupportedError(
            f"{path} has bias = {bias!r}: the adapter brings biases of the base model",
            fix="train it with bias='none'",
        )
    _check_init(fields.get("init_lora_weights"), path)
    handled = _NEUTRAL | {"peft_type", "bias", "init_lora_weights"}
    for name, value in fields.items():
        if not value or name in handled:
            continue
        what, fix = _REFUSED.get(name, ("something unknown here", "train a plain LoRA"))
        raise UnsupportedError(f"{path} has {name} = {value!r}: {what}", fix=fix)


def _check_init(init: Any, path: Path) -> None:
    if isinstance(init, str) and init.startswith(_CHANGES_BASE):
        raise UnsupportedError(
            f"{path} has init_lora_weights = {init!r}, which changed the base model too",
            fix="save it with path_initial_model_for_weight_conversion, or merge it",
        )
    if init not in _HARMLESS_INITS:
        raise UnsupportedError(
            f"{path} has init_lora_weights = {init!r}, which is not known here",
            fix="merge it with merge_and_unload()",
        )


def _pattern_of(layer: str, patterns: Mapping[str, Any]) -> str:
    """Return the first pattern that a layer's name, or its end after a dot, matches."""
    return next((p for p in patterns if re.match(rf"(.*\.)?({p})$", layer)), layer)


def _positive(value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"rank {value!r} is not a whole number of at least 1")
    return value
