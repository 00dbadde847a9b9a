"""What a mixture of experts decided in one pass. T tokens, E experts, K experts per token."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from weft.ops.grouped.order import expert_counts
from weft.spec import MoESpec


@dataclass(frozen=True)
class RoutingRecord:
    """One layer's choices, before experts that are full refuse tokens.

    Attributes:
        layer: Index of the layer.
        spec: The mixture.
        ids_TK: Chosen experts; E where a choice was left out.
        weights_TK: Their weights, float32, differentiable.
        scores_TE: Scores of all experts, float32, differentiable.
        logits_TE: Outputs of the router, float32, differentiable; none where tokens are hashed.
    """

    layer: int
    spec: MoESpec
    ids_TK: Tensor
    weights_TK: Tensor
    scores_TE: Tensor
    logits_TE: Tensor

    @cached_property
    def counts_E(self) -> Tensor:
        """How many tokens chose each expert, [E], int64; computed when first asked for."""
        return expert_counts(self.ids_TK, self.spec.num_experts)
