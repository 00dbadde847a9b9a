"""Checked access to the fields of a Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.core.errors import CheckpointError, UnsupportedError
from weft.spec.rotary import RotaryScaling, RotarySpec


class Fields:
    """The fields of a ``config.json`` with errors that name the field."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number; null counts as missing."""
        value = self.config.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool):
            raise CheckpointError(
                f"config.json: {name} is {value!r}; a whole number is needed",
                fix="restore the config.json that belongs to these weights",
            )
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number; null counts as missing."""
        value = self.config.get(name)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise CheckpointError(f"config.json: {name} is {value!r}; a number is needed")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return a truth value; null counts as missing."""
        value = self.config.get(name)
        return default if value is None else bool(value)

    def require(self, name: str, *allowed: Any) -> None:
        """Refuse the model unless the field is missing, null or one of ``allowed``."""
        value = self.config.get(name)
        if value is not None and value not in allowed:
            expected = " or ".join(repr(choice) for choice in allowed)
            raise UnsupportedError(
                f"config.json: {name} is {value!r}; this family supports {expected}"
            )

    def token_ids(self, name: str) -> tuple[int, ...]:
        """Return a token id or a list of them as a tuple."""
        value = self.config.get(name)
        if value is None:
            return ()
        return tuple(value) if isinstance(value, list) else (int(value),)

    def token_id(self, name: str) -> int | None:
        """Return one token id, or none."""
        ids = self.token_ids(name)
        return ids[0] if ids else None

    def rotary(self, default_theta: float = 10_000.0) -> RotarySpec:
        """Read rotary parameters: ``rope_parameters`` (transformers 5) or the older keys."""
        merged = dict(self.config.get("rope_scaling") or {})
        merged.update(self.config.get("rope_parameters") or {})
        theta = float(merged.get("rope_theta") or self.number("rope_theta", default_theta))
        kind = merged.get("rope_type", merged.get("type", "default"))
        if kind == "default":
            return RotarySpec(theta=theta)
        if kind == "linear":
            return RotarySpec(theta=theta, scaling=RotaryScaling("linear", float(merged["factor"])))
        if kind == "llama3":
            scaling = RotaryScaling(
                kind="llama3",
                factor=float(merged["factor"]),
                low_freq_factor=float(merged["low_freq_factor"]),
                high_freq_factor=float(merged["high_freq_factor"]),
                original_context=int(merged["original_max_position_embeddings"]),
            )
            return RotarySpec(theta=theta, scaling=scaling)
        raise UnsupportedError(
            f"config.json: rope type {kind!r} is not supported",
            fix="supported rope types are 'default', 'linear' and 'llama3'",
        )


def rotary_to_hf(rotary: RotarySpec) -> dict[str, Any]:
    """Write rotary parameters under the keys of transformers 5 and of older versions."""
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": rotary.theta}
    if rotary.scaling is None:
        return {"rope_theta": rotary.theta, "rope_scaling": None, "rope_parameters": parameters}
    scaling = rotary.scaling
    parameters |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        parameters |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    legacy = {key: value for key, value in parameters.items() if key != "rope_theta"}
    return {"rope_theta": rotary.theta, "rope_scaling": legacy, "rope_parameters": parameters}
