"""A training run on a cluster: step, rate, utilization, memory, days, money, energy."""

from __future__ import annotations

from dataclasses import dataclass

from weft.plan.accounting import distinct_layers, flops_per_token
from weft.plan.economy import Bill, run_bill
from weft.plan.figure import Figure
from weft.plan.hardware.cluster import Cluster
from weft.plan.layout import TrainingLayout
from weft.plan.ledger import Fit, fit_memory
from weft.plan.step_time import StepTime, step_time
from weft.plan.training_constants import TrainingConstants, training_constants
from weft.spec import ModelSpec, MoESpec

_SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class RunEstimate:
    """What a training run takes.

    Attributes:
        step: Where the seconds of a step go.
        step_s: Seconds per step with their 80 % interval.
        tokens_per_s_per_device: Rate.
        mfu: Model FLOPs over the bfloat16 peak, causal pairs.
        mfu_palm: The same with every pair counted.
        hfu: Recomputation counted too.
        memory: What the fullest device needs, whether it fits and what would make it fit.
        days: Of the whole run; none without a number of tokens.
        bill: Device hours, money and energy of the whole run; none without a number of tokens.
    """

    step: StepTime
    step_s: Figure
    tokens_per_s_per_device: Figure
    mfu: float
    mfu_palm: float
    hfu: float
    memory: Fit
    days: float | None = None
    bill: Bill | None = None


def estimate_run(
    spec: ModelSpec,
    layout: TrainingLayout,
    cluster: Cluster,
    *,
    num_tokens: float | None = None,
    price_per_hour: float = 2.0,
    constants: TrainingConstants | None = None,
) -> RunEstimate:
    """Predict a training run.

    Args:
        spec: The model.
        layout: How it is trained; its devices are those of the cluster.
        cluster: On what.
        num_tokens: Tokens of the whole run.
        price_per_hour: Of one device.
        constants: Of the training model; none means the shipped ones.
    """
    constants = constants or training_constants()
    step = step_time(spec, layout, cluster, constants)
    factor = interval_factor(spec, constants)
    step_s = Figure.within(step.total_s, factor, "s", "fit")
    rate = layout.tokens_per_step / step.total_s / layout.num_devices
    peak = cluster.device.matmul_flops["bfloat16"]
    causal = flops_per_token(spec, layout.length, "causal")
    repeated = step.recompute_s / (step.compute_s - step.recompute_s) if step.compute_s else 0.0
    days = bill = None
    if num_tokens is not None:
        seconds = num_tokens / layout.tokens_per_step * step.total_s
        days = seconds / _SECONDS_PER_DAY
        bill = run_bill(
            layout.num_devices,
            seconds,
            price_per_hour=price_per_hour,
            power_w=cluster.device.power_w,
        )
    return RunEstimate(
        step=step,
        step_s=step_s,
        tokens_per_s_per_device=Figure.within(rate, factor, "tok/s", "fit"),
        mfu=causal * rate / peak,
        mfu_palm=flops_per_token(spec, layout.length, "palm") * rate / peak,
        hfu=causal * (1.0 + repeated) * rate / peak,
        memory=fit_memory(spec, layout, cluster.device.memory_bytes),
        days=days,
        bill=bill,
    )


def interval_factor(spec: ModelSpec, constants: TrainingConstants) -> float:
    """Return the factor of the 80 % interval: mixtures are predicted less surely."""
    mixture = any(isinstance(layer.ffn, MoESpec) for layer in distinct_layers(spec))
    return constants.interval_experts if mixture else constants.interval
