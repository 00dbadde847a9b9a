"""How many adapters an engine computes with, and how large they may be."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class AdapterConfig:
    """Room for adapters.

    Attributes:
        max_loaded: Adapters that are on the device at a time. Any number may be loaded: the others
            wait in host memory, and the one that was used longest ago makes room. A step with
            more adapters than this is computed in several passes.
        max_rank: Largest rank of a pair. Every slot has room for it, so it costs time and memory
            beyond the rank that the adapters have.
    """

    max_loaded: int = 8
    max_rank: int = 16

    def __post_init__(self) -> None:
        for name in ("max_loaded", "max_rank"):
            if getattr(self, name) < 1:
                raise ConfigError(f"adapters.{name} is {getattr(self, name)}", fix="use at least 1")
