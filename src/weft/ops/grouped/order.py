"""Rows sorted by expert. A assignments of a token to an expert, E experts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ExpertOrder(NamedTuple):
    """A stable sort of assignments by expert.

    Attributes:
        sorted_A: Position in the sorted rows and the assignment that stands there.
        place_A: Assignment and its position in the sorted rows: the inverse of ``sorted_A``.
        counts_E: Assignments of each expert, int64.
    """

    sorted_A: Tensor
    place_A: Tensor
    counts_E: Tensor


def expert_order(experts_A: Tensor, num_experts: int) -> ExpertOrder:
    """Sort assignments by expert; those of one expert keep their order.

    ``num_experts`` as an expert means none: such assignments come last and are not counted.
    """
    sorted_A = experts_A.argsort(stable=True)
    place_A = torch.empty_like(sorted_A)
    place_A[sorted_A] = torch.arange(sorted_A.shape[0], device=sorted_A.device)
    return ExpertOrder(sorted_A, place_A, expert_counts(experts_A, num_experts))


def expert_counts(experts_A: Tensor, num_experts: int) -> Tensor:
    """Return how many assignments each expert has, [E]; expert ``num_experts`` means none."""
    counts_E = torch.zeros(num_experts + 1, dtype=torch.int64, device=experts_A.device)
    ones_A = torch.ones(1, dtype=torch.int64, device=experts_A.device).expand(experts_A.numel())
    return counts_E.scatter_add_(0, experts_A.flatten(), ones_A)[:num_experts]
