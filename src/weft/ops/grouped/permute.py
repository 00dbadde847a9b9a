"""Rows of tokens to rows sorted by expert, and back. T tokens, K experts per token, A = T K.

Both directions, and both gradients, are gathers: nothing is scattered, so nothing depends on the
order in which threads add.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from weft.ops.grouped.order import ExpertOrder


def rows_by_expert(x_TD: Tensor, order: ExpertOrder, num_rows: int) -> Tensor:
    """Return each token's row once per chosen expert, sorted by expert; the first ``num_rows``."""
    return _Spread.apply(x_TD, order.sorted_A, order.place_A, num_rows)  # pyrefly: ignore


def combine_by_token(y_AD: Tensor, order: ExpertOrder, weights_TK: Tensor) -> Tensor:
    """Return the weighted sum of each token's expert rows, [T, D], added up in float32 or wider.

    Rows that were not computed (experts that took no more tokens) count as zero.
    """
    num_missing = order.place_A.shape[0] - y_AD.shape[0]
    y_AD = F.pad(y_AD, (0, 0, 0, num_missing)) if num_missing else y_AD
    by_token_AD = _Permute.apply(y_AD, order.place_A, order.sorted_A)  # pyrefly: ignore
    y_TKD = by_token_AD.unflatten(0, weights_TK.shape)
    total_TD = weights_TK[:, :1] * y_TKD[:, 0]
    for choice in range(1, weights_TK.shape[1]):  # one at a time: the order of the sum is fixed
        total_TD = total_TD + weights_TK[:, choice : choice + 1] * y_TKD[:, choice]
    return total_TD.to(y_AD.dtype)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, sorted_A: Tensor, place_A: Tensor, num_rows: int) -> Tensor:
        ctx.save_for_backward(place_A)
        ctx.num_tokens = x_TD.shape[0]
        num_choices = sorted_A.shape[0] // max(x_TD.shape[0], 1)
        return x_TD.index_select(0, sorted_A[:num_rows] // max(num_choices, 1))

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, grad_AD: Tensor
    ) -> tuple[Tensor | None, ...]:
        (place_A,) = ctx.saved_tensors
        num_missing = place_A.shape[0] - grad_AD.shape[0]
        grad_AD = F.pad(grad_AD, (0, 0, 0, num_missing)) if num_missing else grad_AD
        grad_TKD = grad_AD.index_select(0, place_A).view(ctx.num_tokens, -1, grad_AD.shape[1])
        return grad_TKD.sum(1), None, None, None


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_AD: Tensor, places_A: Tensor, inverse_A: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_A)
        return y_AD.index_select(0, places_A)

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, grad_AD: Tensor
    ) -> tuple[Tensor | None, ...]:
        (inverse_A,) = ctx.saved_tensors
        return grad_AD.index_select(0, inverse_A), None, None
