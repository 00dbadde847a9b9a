"""What a step minimises: an objective maps a model and a batch to a sum and a count.

Objectives never divide. The step divides once, by the count over all micro-batches (and, with
more devices, over all of them), so that the loss does not depend on how a batch was cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from weft.data.batch import Batch
from weft.models.decoder import Decoder
from weft.models.heads import cross_entropy_sum
from weft.models.mtp_loss import mtp_cross_entropy_sums
from weft.nn.context import StepContext
from weft.train.balance import balance_penalty, expert_loads


class LossSum(NamedTuple):
    """One micro-batch's share of the loss.

    Attributes:
        loss_sum: 0-d float32, differentiable, in nats.
        count: How many terms the sum has; 0-d tensor or number.
        stats: Further sums over the same terms, for the metrics.
        penalty_sum: Minimised together with ``loss_sum`` but not part of the reported loss.
        loads: How many tokens chose each expert, by layer; empty for a dense model.
    """

    loss_sum: Tensor
    count: Tensor | float
    stats: Mapping[str, Tensor] = {}
    penalty_sum: Tensor | None = None
    loads: Mapping[int, Tensor] = {}

    @property
    def minimised(self) -> Tensor:
        """What gradients are taken of."""
        return self.loss_sum if self.penalty_sum is None else self.loss_sum + self.penalty_sum


class Objective(Protocol):
    """Computes the loss sum of one micro-batch."""

    def __call__(self, model: Any, batch: Any) -> LossSum: ...


class NextTokenObjective:
    """Cross-entropy of each label under the model, summed over positions that have one.

    While a mixture of experts is trained, its balancing losses join as a penalty per label. They
    compare loads within a micro-batch, so unlike the loss they change with how a batch is cut.
    Multi-token prediction modules join with ``mtp_weight`` times the mean of their losses
    (DeepSeek-V3, arXiv:2412.19437, equations 24 and 25, which divide by the same count).
    """

    def __init__(self, *, mtp_weight: float = 0.3) -> None:
        self.mtp_weight = mtp_weight

    def __call__(self, model: Decoder, batch: Batch) -> LossSum:
        """Return the summed negative log-likelihood of the batch's labels."""
        device = model.device
        ctx = StepContext.packed(batch.lengths, device=device)
        tokens_T, labels_T = (to_device(x, device) for x in (batch.tokens_T, batch.labels_T))
        hidden_TD = model(tokens_T, ctx)
        loss_sum, count = cross_entropy_sum(model, hidden_TD, labels_T)
        penalties: dict[str, Tensor] = {}
        if model.training and len(model.mtp):
            sums = mtp_cross_entropy_sums(model, tokens_T, hidden_TD, labels_T, ctx)
            mean = torch.stack([mtp_sum for mtp_sum, _ in sums]).mean()
            penalties["mtp_loss"] = self.mtp_weight * mean
        balance = balance_penalty(ctx) if model.training else None
        if balance is not None:
            penalties["balance_loss"] = balance * count
        stats = {name: penalty.detach() for name, penalty in penalties.items()}
        penalty_sum = torch.stack(list(penalties.values())).sum() if penalties else None
        return LossSum(loss_sum, count, stats, penalty_sum, expert_loads(ctx))


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor on ``device``; the host does not wait for the copy."""
    # Memory maps may be read-only, which torch would warn about.
    tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
    return tensor.to(device, non_blocking=True)
