"""How long a kernel takes: a roofline with the shares real kernels reach.

``t = max(FLOPs / (peak · share), bytes / (bandwidth · share)) + start`` (Williams et al. 2009,
"Roofline"), where a matrix product's share falls with few rows, a short inner width or few
columns: a tile's prologue and epilogue do not shrink with the work. Narrower types run the
products faster and the prologue not, so their widths weigh more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from weft.core.errors import ConfigError, did_you_mean
from weft.plan.cost import Bound, Cost
from weft.plan.ops import Op
from weft.spec.hardware import HardwareSpec

# bfloat16 is the measure: a type twice as fast needs twice the width for the same share.
_REFERENCE = "bfloat16"


@dataclass(frozen=True)
class KernelModel:
    """Constants of the roofline that do not depend on the device.

    Attributes:
        inner_half: Inner width at which a product on a device of 1 PFLOP/s reaches half its share.
        attention_half: Query tokens per sequence at which attention reaches half its share.
    """

    inner_half: float = 80.0
    attention_half: float = 0.0


DEFAULT_KERNELS = KernelModel()


def peak_flops(device: HardwareSpec, dtype: str) -> float:
    """Return the achievable matmul rate of a type.

    A weight-only type computes in bfloat16; float16 stands in for bfloat16 and the reverse.

    Raises:
        ConfigError: the device has no peak for the type.
    """
    for name in (dtype, *_STAND_INS.get(dtype, ())):
        if name in device.matmul_flops:
            return device.achievable_flops(name)
    raise ConfigError(
        f"{device.name} has no matmul peak for {dtype!r}",
        fix=did_you_mean(dtype, device.matmul_flops),
    )


_STAND_INS = {
    "bfloat16": ("float16",),
    "float16": ("bfloat16",),
    "int4": ("bfloat16", "float16"),
    "float4": ("float8", "bfloat16"),
    "float8": ("bfloat16", "float16"),
    "int8": ("bfloat16", "float16"),
}


def op_cost(op: Op, device: HardwareSpec, model: KernelModel = DEFAULT_KERNELS) -> Cost:
    """Return what ``op.count`` executions take on one device."""
    compute_s = compute_seconds(op, device, model)
    memory_s = op.memory_bytes / device.achievable_bandwidth
    busy_s = max(compute_s, memory_s)
    bound: Bound = "compute" if compute_s >= memory_s else "memory"
    if device.kernel_start_s > busy_s:
        bound = "latency"
    return Cost(
        name=op.name,
        seconds=(busy_s + device.kernel_start_s) * op.count,
        flops=op.total_flops,
        memory_bytes=op.total_bytes,
        bound=bound,
        grade=device.grade,
    )


def compute_seconds(op: Op, device: HardwareSpec, model: KernelModel = DEFAULT_KERNELS) -> float:
    """Return the seconds one execution needs if memory were free."""
    if op.flops == 0.0 or op.kind == "elementwise":
        return 0.0
    if op.kind == "attention":
        rate = device.matmul_flops.get(_REFERENCE) or peak_flops(device, _REFERENCE)
        return op.flops / (rate * device.attention_share)
    rate = peak_flops(device, op.dtype)
    return op.flops / (rate * shape_share(op, rate, model))


def shape_share(op: Op, rate: float, model: KernelModel) -> float:
    """Return the share of a large product's rate that this shape reaches, in (0, 1]."""
    _, inner, _ = op.shape
    half = model.inner_half * rate / 1e15
    return inner / (inner + half)


def ops_cost(
    name: str, ops: Iterable[Op], device: HardwareSpec, model: KernelModel = DEFAULT_KERNELS
) -> Cost:
    """Return the cost of kernels that run one after the other, children kept."""
    return Cost.total(name, (op_cost(op, device, model) for op in ops))
