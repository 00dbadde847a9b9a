"""What a device can do at best, with where each figure comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Grade = Literal["spec", "fit", "measured"]


@dataclass(frozen=True)
class HardwareSpec:
    """One device as the planner sees it.

    Peaks are dense (no structured sparsity). The shares say how much of a peak well-tuned kernels
    reach on large problems; a measured device has shares of 1, because its peaks are measured.

    Attributes:
        name: For people.
        matmul_flops: Peak matrix-multiply rate in FLOP/s by element type ("float32", "bfloat16",
            "float8", "float4", "int8").
        memory_bytes: Memory of the device.
        memory_bandwidth: Bytes per second, reading.
        num_threads: Worker threads the rates were measured with (CPU).
        grade: Where the figures come from: data sheet, fit or measurement.
        matmul_share: Reached share of ``matmul_flops`` by element type; absent means 1.
        attention_share: Reached share of the bfloat16 peak in fused attention.
        memory_share: Reached share of ``memory_bandwidth``.
        kernel_start_s: Fixed seconds of one kernel.
        scale_up: Name of the link inside a node or rack (``weft.plan.hardware.links``).
        scale_up_size: Devices that share it.
        scale_out: Name of the link between nodes, one share per device.
        power_w: Thermal design power.
        sources: Where each field comes from.
    """

    name: str
    matmul_flops: dict[str, float] = field(default_factory=dict)
    memory_bytes: int = 0
    memory_bandwidth: float = 0.0
    num_threads: int = 1
    grade: Grade = "measured"
    matmul_share: dict[str, float] = field(default_factory=dict)
    attention_share: float = 1.0
    memory_share: float = 1.0
    kernel_start_s: float = 0.0
    scale_up: str = ""
    scale_up_size: int = 1
    scale_out: str = ""
    power_w: float = 0.0
    sources: dict[str, str] = field(default_factory=dict)

    def achievable_flops(self, dtype: str) -> float:
        """Return the rate that large matrix products reach, in FLOP/s."""
        return self.matmul_flops[dtype] * self.matmul_share.get(dtype, 1.0)

    @property
    def achievable_bandwidth(self) -> float:
        """The rate that large copies reach, in bytes per second."""
        return self.memory_bandwidth * self.memory_share
