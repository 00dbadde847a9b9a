"""How much of the machine a step uses: MFU, HFU and MBU.

Model FLOPs are those of ``weft.plan.flops``: the matmuls the model is made of, forward once and
backward twice, attention only where a causal document mask leaves it.
"""

from __future__ import annotations

from weft.spec import HardwareSpec

_PEAK_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def model_flops_utilization(model_flops: float, seconds: float, peak_flops: float) -> float:
    """Return MFU: model FLOPs per second over the peak rate (arXiv:2204.02311, appendix B)."""
    return model_flops / seconds / peak_flops


def hardware_flops_utilization(
    model_flops: float, recomputed_flops: float, seconds: float, peak_flops: float
) -> float:
    """Return HFU: as MFU, with the FLOPs of recomputed activations (arXiv:2205.05198)."""
    return (model_flops + recomputed_flops) / seconds / peak_flops


def model_bandwidth_utilization(num_bytes: float, seconds: float, bandwidth: float) -> float:
    """Return MBU: bytes that had to be read per second over the memory's rate.

    For decoding these are the weights and the KV cache, once per step.
    """
    return num_bytes / seconds / bandwidth


def matmul_peak(hardware: HardwareSpec | None, precision: str) -> float | None:
    """Return the peak matmul rate in FLOP/s for a precision, or none where it is not known."""
    if hardware is None:
        return None
    return hardware.matmul_flops.get(_PEAK_TYPES[precision])
