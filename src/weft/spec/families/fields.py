"""Checked access to the fields of a Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from weft.core.errors import CheckpointError, UnsupportedError
from weft.spec.families.rotary import read_rotary
from weft.spec.rotary import RotarySpec

T = TypeVar("T")


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
            expected = " or ".join(repr(choice) for choice in allowed) or "none"
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

    def optional_integer(self, name: str, default: int | None = None) -> int | None:
        """Return a whole number or none; only a missing field means the default, null is none."""
        return None if self.config.get(name, default) is None else self.integer(name, default)

    def optional_number(self, name: str, default: float | None = None) -> float | None:
        """Return a number or none; only a missing field means the default, null is none."""
        value = self.config.get(name, default)
        return None if value is None else self.number(name, value)

    def choice(self, name: str, choices: Mapping[str, T], default: str) -> T:
        """Return what one of their words means here; null counts as missing.

        Raises:
            UnsupportedError: a word that is not among ``choices``.
        """
        self.require(name, *choices)
        return choices[self.config.get(name) or default]

    def layer_types(self, default: Sequence[str]) -> tuple[str, ...]:
        """Return the kind of every layer; ``default`` is the family's pattern.

        Raises:
            CheckpointError: not one kind per layer.
        """
        types = tuple(self.config.get("layer_types") or default)
        if len(types) != self.integer("num_hidden_layers"):
            raise CheckpointError(
                f"config.json: layer_types has {len(types)} entries, one for each of "
                f"{self.integer('num_hidden_layers')} layers is needed"
            )
        return types

    def rotary(
        self,
        default_theta: float = 10_000.0,
        *,
        head_dim: int | None = None,
        default_partial: float = 1.0,
        layer_type: str | None = None,
    ) -> RotarySpec:
        """Read rotary parameters (``weft.spec.families.rotary``)."""
        return read_rotary(
            self.config,
            default_theta=default_theta,
            head_dim=head_dim,
            default_partial=default_partial,
            layer_type=layer_type,
        )
