"""One optimization step as a function of its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from weft.train.balance import add_loads, update_correction_biases
from weft.train.clip import scale_and_clip
from weft.train.objective import Objective
from weft.train.optim import Optimizers
from weft.train.precision import LossScaler, autocast


class StepResult(NamedTuple):
    """Sums of one step over all its micro-batches; 0-d tensors the host has not waited for.

    Attributes:
        loss_sum: Summed loss; divide by ``count`` for the mean.
        count: Number of terms in every sum.
        grad_norm: Global gradient norm before clipping.
        skipped: 1 when gradients were not finite and nothing was updated, else 0.
        stats: The objective's further sums.
        loads: How many tokens chose each expert, by layer.
    """

    loss_sum: Tensor
    count: Tensor
    grad_norm: Tensor
    skipped: Tensor
    stats: dict[str, Tensor]
    loads: Mapping[int, Tensor] = {}


def train_step(
    model: nn.Module,
    optimizers: Optimizers,
    batches: Sequence[Any],
    objective: Objective,
    *,
    max_grad_norm: float | None = 1.0,
    precision: str = "fp32",
    scaler: LossScaler | None = None,
) -> StepResult:
    """Accumulate gradients over micro-batches, divide by the total count, clip, update.

    The gradient is that of ``sum of all loss sums / sum of all counts``: it does not change when
    the same tokens come in more or fewer micro-batches. A step whose gradients are not finite
    (or that has no term at all) changes neither parameters nor optimizer state.
    """
    device_type = optimizers.parameters[0].device.type
    loss_scale = 1.0 if scaler is None else scaler.scale
    sums: dict[str, Tensor] = {}
    loads: Mapping[int, Tensor] = {}
    for batch in batches:
        with autocast(precision, device_type):
            result = objective(model, batch)
        (result.minimised * loss_scale if scaler else result.minimised).backward()
        count = torch.as_tensor(result.count)
        terms = {"loss_sum": result.loss_sum.detach(), "count": count, **result.stats}
        sums, loads = _add(sums, terms), add_loads(loads, result.loads)
    loss_sum, count = sums.pop("loss_sum"), sums.pop("count").to(sums_device(optimizers))
    gradients = [p.grad for p in optimizers.parameters if p.grad is not None]
    norm, found_inf = scale_and_clip(gradients, divisor=count * loss_scale, max_norm=max_grad_norm)
    optimizers.step(found_inf)
    optimizers.zero_grad()
    update_correction_biases(model, loads, found_inf)
    if scaler is not None:
        scaler.update(bool(found_inf))
    return StepResult(loss_sum, count, norm, found_inf, sums, loads)


def sums_device(optimizers: Optimizers) -> torch.device:
    """Return the device on which a step's sums live: that of the parameters."""
    return optimizers.parameters[0].device


def _add(sums: dict[str, Tensor], terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not sums:
        return {name: value.detach() for name, value in terms.items()}
    return {name: sums[name] + value.detach() for name, value in terms.items()}
