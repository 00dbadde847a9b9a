"""How much of a device is used: MFU, HFU, MBU, and the roofline's ridge.

MFU (Chowdhery et al. 2022, arXiv:2204.02311) counts the FLOPs the model needs, HFU (Korthikanti
et al. 2022, arXiv:2205.05198) also those that recomputation repeats, both over the dense peak. MBU
is bytes that must move over the bandwidth. "GPU utilisation" as drivers print it is neither: the
share of time in which at least one kernel ran.
"""

from __future__ import annotations

from typing import Literal

Bound = Literal["compute", "memory"]


def model_flops_utilization(
    flops_per_token: float, tokens_per_s: float, peak_flops: float
) -> float:
    """Return MFU; all three per device, or all three in total.

    >>> round(100 * model_flops_utilization(1.0, 400e12, 989.4e12), 2)
    40.43
    """
    return flops_per_token * tokens_per_s / peak_flops


def hardware_flops_utilization(
    flops_per_token: float, recomputed_flops_per_token: float, tokens_per_s: float, peak: float
) -> float:
    """Return HFU: needed and repeated FLOPs over peak."""
    return (flops_per_token + recomputed_flops_per_token) * tokens_per_s / peak


def bandwidth_utilization(bytes_per_token: float, tokens_per_s: float, bandwidth: float) -> float:
    """Return MBU: weights and cache read per token over bandwidth."""
    return bytes_per_token * tokens_per_s / bandwidth


def ridge_intensity(peak_flops: float, bandwidth: float) -> float:
    """Return FLOPs per byte above which a kernel is bound by compute.

    >>> round(ridge_intensity(989.4e12, 3.35e12), 1)
    295.3
    """
    return peak_flops / bandwidth


def roofline_flops(intensity: float, peak_flops: float, bandwidth: float) -> float:
    """Return the attainable FLOP/s at an intensity."""
    return min(peak_flops, intensity * bandwidth)


def roofline_points(
    peak_flops: float, bandwidth: float, *, low: float = 0.25, high: float = 4096.0
) -> tuple[tuple[float, float], ...]:
    """Return (intensity, FLOP/s) at powers of two and at the ridge, for a plot."""
    ridge = ridge_intensity(peak_flops, bandwidth)
    intensities = [ridge]
    value = low
    while value <= high:
        intensities.append(value)
        value *= 2.0
    return tuple((x, roofline_flops(x, peak_flops, bandwidth)) for x in sorted(intensities))


def megatron_step_flops(
    batch: int, length: int, num_layers: int, dim: int, vocab_size: int, *, recompute: bool
) -> float:
    """Return FLOPs of a GPT step, 96·B·s·L·h²·(1 + s/6h + V/16Lh) with full recomputation.

    Without it the factor is 72 and the head V/12Lh (arXiv:2104.04473, equation 3).
    """
    factor, head = (96.0, 16.0) if recompute else (72.0, 12.0)
    relative = 1.0 + length / (6.0 * dim) + vocab_size / (head * num_layers * dim)
    return factor * batch * length * num_layers * dim**2 * relative
