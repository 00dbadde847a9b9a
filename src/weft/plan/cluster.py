"""Training a model on many devices: FLOPs over sustained rate, and the sharded training state."""

from __future__ import annotations

from dataclasses import dataclass

from weft.plan.figure import Figure
from weft.plan.flops import training_flops
from weft.plan.parameters import count_parameters
from weft.spec import ModelSpec

# Model FLOPs over peak that published dense runs reach: Llama-3 405B 0.38 to 0.43
# (arXiv:2407.21783, table 4), Megatron-LM 0.41 to 0.48; small clusters and models less.
TYPICAL_MFU = 0.40
MFU_FACTOR = 1.35
# bf16 weight and gradient, fp32 master weight and two Adam moments
# (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1).
STATE_BYTES_PER_PARAMETER = 16


@dataclass(frozen=True)
class ClusterPlan:
    """What a training run takes.

    Attributes:
        num_parameters: Parameters of the model.
        flops: FLOPs of the whole run.
        num_devices: Devices.
        duration_s: Wall-clock seconds.
        state_bytes: Weights, gradients and optimizer over all devices.
        state_bytes_per_device: The same, fully sharded (ZeRO-3).
    """

    num_parameters: int
    flops: float
    num_devices: int
    duration_s: Figure
    state_bytes: int
    state_bytes_per_device: int


def plan_cluster(
    spec: ModelSpec,
    *,
    num_tokens: float,
    num_devices: int,
    peak_flops: float,
    sequence_length: int,
) -> ClusterPlan:
    """Plan a training run on devices of one kind."""
    per_token = training_flops(spec, [sequence_length]) / sequence_length
    flops = per_token * num_tokens
    num_parameters = count_parameters(spec).total
    state_bytes = STATE_BYTES_PER_PARAMETER * num_parameters
    seconds = flops / (num_devices * peak_flops * TYPICAL_MFU)
    return ClusterPlan(
        num_parameters=num_parameters,
        flops=flops,
        num_devices=num_devices,
        duration_s=Figure.within(seconds, MFU_FACTOR, "s", "spec"),
        state_bytes=state_bytes,
        state_bytes_per_device=-(-state_bytes // num_devices),
    )
