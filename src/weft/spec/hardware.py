"""What a device can do at best, with where each figure comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Grade = Literal["spec", "fit", "measured"]


@dataclass(frozen=True)
class HardwareSpec:
    """One device as the planner sees it.

    Attributes:
        name: For people.
        matmul_flops: Peak matrix-multiply rate in FLOP/s by element type ("float32", "bfloat16").
        memory_bytes: Memory of the device.
        memory_bandwidth: Bytes per second, reading.
        num_threads: Worker threads the rates were measured with (CPU).
        grade: Where the figures come from: data sheet, fit or measurement.
    """

    name: str
    matmul_flops: dict[str, float] = field(default_factory=dict)
    memory_bytes: int = 0
    memory_bandwidth: float = 0.0
    num_threads: int = 1
    grade: Grade = "measured"
