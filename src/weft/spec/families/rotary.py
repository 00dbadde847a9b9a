"""Rotary parameters in ``config.json``, of transformers 5 (``rope_parameters``) and older."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.core.errors import CheckpointError, UnsupportedError
from weft.spec.rotary import RotaryScaling, RotarySpec

# Fields of a scaling under their names and ours.
NUMBERS = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "mscale": "mscale",
    "mscale_all_dim": "mscale_all_dim",
    "attention_factor": "attention_factor",
}
# Which of them each rule writes; "longrope" has its lists besides.
WRITTEN = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor"),
    "longrope": ("factor", "attention_factor"),
}
ORIGINAL = "original_max_position_embeddings"


def read_rotary(
    config: Mapping[str, Any],
    *,
    default_theta: float = 10_000.0,
    head_dim: int | None = None,
    default_partial: float = 1.0,
    layer_type: str | None = None,
) -> RotarySpec:
    """Read rotary parameters.

    ``layer_type`` names the entry where they differ between kinds of layers; ``head_dim`` is
    needed to know how many dimensions a ``partial_rotary_factor`` leaves.

    Raises:
        UnsupportedError: a rule that is not known.
        CheckpointError: a field that the rule needs is missing.
    """
    merged = _merged(config, layer_type)
    theta = float(merged.get("rope_theta") or config.get("rope_theta") or default_theta)
    partial = merged.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    dim = None
    if head_dim is not None:
        dim = int(head_dim * (default_partial if partial is None else float(partial)))
        dim = None if dim == head_dim else dim
    return RotarySpec(theta=theta, dim=dim, scaling=_scaling(merged, config))


def rotary_to_hf(rotary: RotarySpec, head_dim: int | None = None) -> dict[str, Any]:
    """Write rotary parameters under the keys of transformers 5 and of older versions."""
    parameters = rotary_parameters(rotary, head_dim)
    legacy = {
        key: value
        for key, value in parameters.items()
        if key not in ("rope_theta", "partial_rotary_factor")
    }
    scaling = None if rotary.scaling is None else legacy
    fields = {"rope_theta": rotary.theta, "rope_scaling": scaling, "rope_parameters": parameters}
    if "partial_rotary_factor" in parameters:
        fields["partial_rotary_factor"] = parameters["partial_rotary_factor"]
    return fields


def layered_rotary_to_hf(rotaries: Mapping[str, RotarySpec], main: str) -> dict[str, Any]:
    """Write parameters that differ between kinds of layers; older versions know ``main`` alone."""
    parameters = {kind: rotary_parameters(rotary) for kind, rotary in rotaries.items()}
    return {**rotary_to_hf(rotaries[main]), "rope_parameters": parameters}


def rotary_parameters(rotary: RotarySpec, head_dim: int | None = None) -> dict[str, Any]:
    """Return the content of ``rope_parameters``."""
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": rotary.theta}
    if rotary.dim is not None and head_dim is not None:
        parameters["partial_rotary_factor"] = rotary.dim / head_dim
    scaling = rotary.scaling
    if scaling is None:
        return parameters
    parameters["rope_type"] = scaling.kind
    for theirs in WRITTEN.get(scaling.kind, ()):
        value = getattr(scaling, NUMBERS[theirs])
        if value is not None:
            parameters[theirs] = value
    if scaling.kind in ("llama3", "yarn", "longrope"):
        parameters[ORIGINAL] = scaling.original_context
    if scaling.kind == "yarn" and not scaling.truncate:
        parameters["truncate"] = False
    if scaling.kind == "longrope":
        parameters["short_factor"] = list(scaling.short_factors)
        parameters["long_factor"] = list(scaling.long_factors)
    return parameters


def _merged(config: Mapping[str, Any], layer_type: str | None) -> dict[str, Any]:
    """Return the parameters of one kind of layers, whatever the version that wrote them."""
    parameters = config.get("rope_parameters") or {}
    if layer_type is not None and isinstance(parameters.get(layer_type), Mapping):
        return dict(parameters[layer_type])
    return {**(config.get("rope_scaling") or {}), **parameters}


def _scaling(merged: Mapping[str, Any], config: Mapping[str, Any]) -> RotaryScaling | None:
    kind = _kind(merged)
    if kind is None:
        return None
    values: dict[str, Any] = {
        ours: float(merged[theirs])
        for theirs, ours in NUMBERS.items()
        if merged.get(theirs) is not None and theirs in WRITTEN[kind]
    }
    context = config.get("max_position_embeddings")
    original = config.get(ORIGINAL) or merged.get(ORIGINAL) or context
    if kind == "dynamic":  # stretches beyond what the model is said to be meant for
        original = context
    if kind in ("llama3", "yarn", "longrope", "dynamic"):
        values["original_context"] = int(_needed(original, "max_position_embeddings", kind))
    if kind == "yarn":
        values["truncate"] = bool(merged.get("truncate", True))
    if kind == "longrope":
        values["context"] = int(_needed(context, "max_position_embeddings", kind))
        for length in ("short", "long"):
            factors = _needed(merged.get(f"{length}_factor"), f"{length}_factor", kind)
            values[f"{length}_factors"] = tuple(float(factor) for factor in factors)
    if kind in ("longrope", "yarn") and context and original:
        values.setdefault("factor", context / original)
    _needed(values.get("factor"), "factor", kind)
    return RotaryScaling(kind=kind, **values)


def _kind(merged: Mapping[str, Any]) -> Any:
    """Return the rule, or none where frequencies are not stretched."""
    kind = merged.get("rope_type", merged.get("type", "default"))
    if kind in ("default", "mrope"):
        return None
    if kind == "su" or "short_factor" in merged:  # what Phi-3's first configurations call it
        return "longrope"
    if kind not in WRITTEN:
        known = ", ".join(repr(name) for name in ("default", *WRITTEN))
        raise UnsupportedError(
            f"config.json: rope type {kind!r} is not supported",
            fix=f"supported rope types are {known}",
        )
    return kind


def _needed(value: Any, name: str, kind: str) -> Any:
    if value is None:
        raise CheckpointError(f"config.json: rope type {kind!r} needs {name}")
    return value
