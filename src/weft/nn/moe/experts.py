"""The experts' weights, stacked. A rows sorted by expert, D width, F inner width, E experts.

T tokens, K experts per token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from weft.ops import grouped_linear, swiglu
from weft.ops.activation.functions import ACTIVATIONS
from weft.ops.activation.gated import gated_unit
from weft.ops.grouped.order import expert_order
from weft.ops.grouped.permute import combine_by_token, rows_by_expert
from weft.spec import MLPSpec


class Experts(nn.Module):
    """E feed-forward parts with the first and the second projection of all in one tensor each.

    ``gate_up`` is [E, 2 F, D], gate first ([E, F, D], called ``up``, without a gate), ``down`` is
    [E, D, F]. Each token's experts are computed and no other: rows are sorted by expert, so the
    cost is that of the chosen experts for any load (dropless, arXiv:2211.15841).
    """

    def __init__(
        self,
        num_experts: int,
        dim: int,
        spec: MLPSpec,
        *,
        out_dim: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the tensors; ``out_dim`` none means the experts return to width D."""
        super().__init__()
        self.num_experts, self.spec = num_experts, spec
        where = {"device": device, "dtype": dtype}
        out_dim = dim if out_dim is None else out_dim
        self._first = "gate_up" if spec.gated else "up"
        inner_dim = spec.hidden_dim * (2 if spec.gated else 1)
        self._add(self._first, (num_experts, inner_dim, dim), where)
        self._add("down", (num_experts, out_dim, spec.hidden_dim), where)

    def _add(self, name: str, shape: tuple[int, int, int], where: dict[str, Any]) -> None:
        weight = nn.Parameter(torch.empty(shape, **where))
        bias = nn.Parameter(torch.zeros(shape[:2], **where)) if self.spec.bias else None
        self.register_parameter(name, weight)
        self.register_parameter(f"{name}_bias", bias)
        if not weight.is_meta:
            nn.init.normal_(weight, 0.0, shape[-1] ** -0.5)

    def _linear(self, name: str, x_AD: Tensor, counts_E: Tensor) -> Tensor:
        return grouped_linear(x_AD, getattr(self, name), getattr(self, f"{name}_bias"), counts_E)

    def forward(
        self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, *, complete: bool = False
    ) -> Tensor:
        """Return each token's weighted sum of its experts, [T, D].

        Args:
            x_TD: Hidden states.
            ids_TK: Experts of each token; E means none.
            weights_TK: Their weights, float32.
            complete: No id is E; then the host need not know how many rows there are.
        """
        order = expert_order(ids_TK.flatten(), self.num_experts)
        whole = complete or x_TD.is_meta  # nothing can be counted on the meta device
        num_rows = ids_TK.numel() if whole else int(order.counts_E.sum())
        rows_AD = rows_by_expert(x_TD, order, num_rows)
        return combine_by_token(self.rows(rows_AD, order.counts_E), order, weights_TK)

    def rows(self, x_AD: Tensor, counts_E: Tensor) -> Tensor:
        """Apply experts to rows sorted by expert, ``counts_E`` rows each, [A, D]."""
        hidden_AM = self._linear(self._first, x_AD, counts_E)
        return self._linear("down", self._activate(hidden_AM), counts_E)

    def _activate(self, hidden_AM: Tensor) -> Tensor:
        activation = self.spec.activation
        if not self.spec.gated:
            return ACTIVATIONS[activation](hidden_AM)
        if activation == "silu":
            return swiglu(hidden_AM)
        gate_AF, up_AF = hidden_AM.chunk(2, dim=-1)
        return gated_unit(gate_AF, up_AF, activation)

    def extra_repr(self) -> str:
        return f"{self.num_experts} x {self.spec.hidden_dim}, {self.spec.activation}"
