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
from weft.nn.context import StepContext


class LossSum(NamedTuple):
    """One micro-batch's share of the loss.

    Attributes:
        loss_sum: 0-d float32, differentiable, in nats.
        count: How many terms the sum has; 0-d tensor or number.
        stats: Further sums over the same terms, for the metrics.
    """

    loss_sum: Tensor
    count: Tensor | float
    stats: Mapping[str, Tensor] = {}


class Objective(Protocol):
    """Computes the loss sum of one micro-batch."""

    def __call__(self, model: Any, batch: Any) -> LossSum: ...


class NextTokenObjective:
    """Cross-entropy of each label under the model, summed over positions that have one."""

    def __call__(self, model: Decoder, batch: Batch) -> LossSum:
        """Return the summed negative log-likelihood of the batch's labels."""
        device = model.device
        hidden_TD = model(
            to_device(batch.tokens_T, device), StepContext.packed(batch.lengths, device=device)
        )
        loss_sum, count = cross_entropy_sum(model, hidden_TD, to_device(batch.labels_T, device))
        return LossSum(loss_sum, count)


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor on ``device``; the host does not wait for the copy."""
    # Memory maps may be read-only, which torch would warn about.
    tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
    return tensor.to(device, non_blocking=True)
