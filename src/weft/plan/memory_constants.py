"""What a training process holds beyond its tensors: four fitted constants, shipped as data."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class MemoryConstants:
    """Bytes that no model specification tells.

    Attributes:
        runtime_bytes: Runtime, driver and collective library before the first tensor.
        engine_bytes: Flat reduce and gather buckets of a blocking engine.
        bucket_bytes: Staging buffer of one parallel axis.
        slack_share: What a caching allocator holds beyond the tensors, as a share of activations.
        interval: Factor of the 80 % interval around a peak.
    """

    runtime_bytes: float = 2.5e9
    engine_bytes: float = 4.0e9
    bucket_bytes: float = 0.5e9
    slack_share: float = 0.05
    interval: float = 1.07


@cache
def memory_constants() -> MemoryConstants:
    """Return the constants the package ships."""
    text = resources.files("weft.plan.data").joinpath("memory.toml").read_text("utf-8")
    return MemoryConstants(**tomllib.loads(text))
