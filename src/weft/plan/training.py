"""How long a training step takes on one device.

A step is matrix products at a share of the measured peak, plus element-wise work bounded by
memory bandwidth, plus the optimizer. The share and the traffic per activation are fitted
constants, so every figure is graded ``fit``.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import ConfigError, did_you_mean
from weft.plan.figure import Figure
from weft.plan.flops import training_flops
from weft.plan.memory import Precision, activation_bytes
from weft.plan.parameters import count_parameters
from weft.spec import HardwareSpec, ModelSpec

# Fitted on 2-core AVX-512 machines with weft's own trainer, widths 128 to 768
# (benchmarks/train_cpu.py; docs/log). Share of the measured matmul peak that the products of a
# step reach at large width, and the width at which half of that share is reached.
PEAK_SHARE = {"float32": 0.95, "bfloat16": 0.85}
HALF_SHARE_WIDTH = {"float32": 24.0, "bfloat16": 110.0}
# Times the saved activations cross memory in forward and backward, and bytes per parameter of
# an optimizer step.
ACTIVATION_TRIPS = 6.0
OPTIMIZER_BYTES_PER_PARAMETER = 40.0
INTERVAL_FACTOR = 1.4


@dataclass(frozen=True)
class TrainingEstimate:
    """What one training run will take.

    Attributes:
        step_s: Seconds per optimizer step.
        tokens_per_s: Tokens per second.
        mfu: Model FLOPs over the measured peak.
    """

    step_s: Figure
    tokens_per_s: Figure
    mfu: Figure


def estimate_training(
    spec: ModelSpec,
    hardware: HardwareSpec,
    *,
    tokens_per_step: int,
    sequence_length: int,
    precision: Precision = "float32",
) -> TrainingEstimate:
    """Predict step time and rate of training on one device.

    Raises:
        ConfigError: the hardware has no measured peak of this precision.
    """
    if precision not in hardware.matmul_flops:
        raise ConfigError(
            f"{hardware.name} has no matmul peak for {precision!r}",
            fix=did_you_mean(precision, hardware.matmul_flops),
        )
    peak = hardware.matmul_flops[precision]
    num_sequences, rest = divmod(tokens_per_step, sequence_length)
    lengths = [sequence_length] * num_sequences + ([rest] if rest else [])
    flops = training_flops(spec, lengths)
    share = PEAK_SHARE[precision] * spec.dim / (spec.dim + HALF_SHARE_WIDTH[precision])
    traffic = ACTIVATION_TRIPS * activation_bytes(spec, precision) * tokens_per_step
    traffic += OPTIMIZER_BYTES_PER_PARAMETER * count_parameters(spec).total
    step_s = flops / (peak * share) + traffic / hardware.memory_bandwidth
    return TrainingEstimate(
        step_s=Figure.within(step_s, INTERVAL_FACTOR, "s", "fit"),
        tokens_per_s=Figure.within(tokens_per_step / step_s, INTERVAL_FACTOR, "tok/s", "fit"),
        mfu=Figure.within(flops / step_s / peak, INTERVAL_FACTOR, "of peak", "fit"),
    )
