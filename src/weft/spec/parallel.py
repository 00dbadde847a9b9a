"""How one model is spread over devices."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class ParallelSpec:
    """Sizes of the parallel axes; their product is the number of devices.

    Attributes:
        data: Replicas of the model that see different data.
        tensor: Devices that share each matrix.
        pipeline: Devices that hold different layers.
        context: Devices that hold different parts of a sequence.
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigError(f"parallel.{field.name} must be at least 1")

    @property
    def num_devices(self) -> int:
        return math.prod(getattr(self, field.name) for field in fields(self))
