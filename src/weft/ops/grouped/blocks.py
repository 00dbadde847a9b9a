"""The block layout of fused expert kernels (vLLM's ``moe_align_block_size``).

A kernel that computes B rows at a time needs every expert's rows to start at a multiple of B.
A assignments, E experts, N blocks, B rows per block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from weft.ops.grouped.order import expert_order


class ExpertBlocks(NamedTuple):
    """Assignments in blocks of one expert each.

    Attributes:
        assignments_NB: Assignment at each place; A where the place is padding.
        experts_N: The expert of each block.
        num_padded: Places in all, N x B.
    """

    assignments_NB: Tensor
    experts_N: Tensor
    num_padded: int


def align_blocks(experts_A: Tensor, num_experts: int, block_size: int) -> ExpertBlocks:
    """Sort assignments by expert and round each expert up to whole blocks.

    >>> blocks = align_blocks(torch.tensor([1, 0, 1, 1]), num_experts=3, block_size=2)
    >>> blocks.assignments_NB.tolist(), blocks.experts_N.tolist()
    ([[1, 4], [0, 2], [3, 4]], [0, 1, 1])
    """
    experts_A = experts_A.flatten()
    order = expert_order(experts_A, num_experts)
    blocks_E = (order.counts_E + block_size - 1) // block_size
    num_blocks = int(blocks_E.sum())
    places = experts_A.new_full((num_blocks * block_size,), experts_A.numel(), dtype=torch.int64)
    # An expert's rows move from where the sort put them to where its blocks begin.
    shift_E = (blocks_E.cumsum(0) - blocks_E) * block_size
    shift_E = shift_E - (order.counts_E.cumsum(0) - order.counts_E)
    computed_A = order.sorted_A[: int(order.counts_E.sum())]
    rows = torch.arange(computed_A.numel(), device=experts_A.device)
    places[rows + shift_E[experts_A[computed_A]]] = computed_A
    experts_N = torch.arange(num_experts, device=experts_A.device).repeat_interleave(blocks_E)
    return ExpertBlocks(places.view(num_blocks, block_size), experts_N, places.numel())
