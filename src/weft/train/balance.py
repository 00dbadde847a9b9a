"""Routing in training: balancing losses, loads of experts, the correction bias. E experts.

A mixture of experts leaves a ``RoutingRecord`` per layer in the context. An objective turns them
into a penalty and loads; the step adds loads over all micro-batches and moves the bias once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.moe.layer import MoE
from weft.nn.moe.losses import balance_loss, corrected_bias, imbalance

Loads = Mapping[int, Tensor]
"""How many tokens chose each expert, [E], by layer."""


def expert_loads(ctx: StepContext) -> Loads:
    """Return the loads of one forward pass; empty for a dense model."""
    return {layer: record.counts_E for layer, record in ctx.routing.items()}


def balance_penalty(ctx: StepContext) -> Tensor | None:
    """Return the sum over layers of the losses their specs ask for; none where none do."""
    wanted = [
        record
        for record in ctx.routing.values()
        if record.spec.router.aux_loss or record.spec.router.z_loss
    ]
    if not wanted:
        return None
    return torch.stack([balance_loss(record, ctx.lengths) for record in wanted]).sum()


def add_loads(total: Loads, more: Loads) -> Loads:
    """Return loads of two passes together."""
    summed = {
        layer: total[layer] + counts if layer in total else counts for layer, counts in more.items()
    }
    return {**total, **summed}


@torch.no_grad()
def update_correction_biases(model: nn.Module, loads: Loads, skipped: Tensor) -> None:
    """Move every router's correction bias against its load, unless the step was skipped.

    ``loads`` are those of the whole step, over all micro-batches and devices.
    """
    for module in model.modules():
        if not isinstance(module, MoE) or module.layer not in loads:
            continue
        bias_E, rate = module.router.correction_bias, module.spec.router.bias_rate
        if bias_E is not None and rate:
            moved_E = corrected_bias(bias_E, loads[module.layer].to(bias_E.device), rate)
            bias_E.copy_(torch.where(skipped.to(bias_E.device) != 0, bias_E, moved_E))


def load_metrics(loads: Loads) -> dict[str, dict[str, list[int] | float]]:
    """Return loads and imbalance by layer as JSON holds them; the host waits for the device."""
    return {
        "load": {str(layer): counts_E.tolist() for layer, counts_E in loads.items()},
        "imbalance": {
            str(layer): round(float(imbalance(counts_E)), 6) for layer, counts_E in loads.items()
        },
    }


def mean_imbalance(loads: Loads) -> float:
    """Return the imbalance averaged over layers."""
    return sum(float(imbalance(counts_E)) for counts_E in loads.values()) / len(loads)
