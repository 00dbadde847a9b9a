"""A shared expert computed as further routed ones, which every token chooses.

T tokens, D width, F inner width of a routed expert, E experts, K experts per token, S shared ones.

One grouped product then does the work of two: fewer launches, and no small product by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.core.errors import UnsupportedError
from weft.nn.context import StepContext
from weft.nn.mlp import MLP
from weft.nn.moe.choice import drop_overflow
from weft.nn.moe.experts import Experts
from weft.nn.moe.layer import MoE
from weft.nn.moe.record import RoutingRecord
from weft.ops.activation.stable import stable_sigmoid
from weft.spec import MoESpec


class FusedMoE(nn.Module):
    """A ``MoE`` whose shared expert is S routed experts more, with new tensors of all weights.

    A feed-forward part of inner width S F is the sum of S parts of width F, because every inner
    channel reaches the output through its own column alone. They have weight 1, or the sigmoid of
    the shared gate, which scaled weights of a router do not touch. The router still chooses among
    E experts, so records, losses and given choices are those of the original.

    Args:
        moe: The layer; its router and gate are shared with the new one.

    Raises:
        UnsupportedError: the shared expert is none, or not made like the routed ones.
    """

    def __init__(self, moe: MoE) -> None:
        super().__init__()
        self.num_shared = num_shared_experts(moe.spec)
        self.spec, self.layer = moe.spec, moe.layer
        self.router, self.shared_gate = moe.router, moe.shared_gate
        assert moe.shared is not None
        self.experts = _stacked(moe.experts, moe.shared, self.num_shared)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Transform each token of [T, D]; writes this layer's record into ``ctx.routing``."""
        given_TK = ctx.given_experts.get(self.layer)
        routing = self.router(x_TD, tokens_T=ctx.tokens_T, given_TK=given_TK)
        ctx.routing[self.layer] = RoutingRecord(self.layer, self.spec, *routing)
        ids_TK, capacity = routing.ids_TK, self.spec.capacity(x_TD.shape[0])
        if capacity is not None:
            ids_TK = drop_overflow(ids_TK, self.spec.num_experts, capacity)
        complete = capacity is None and self.spec.router.kind != "gshard"
        ids_TK, weights_TK = self._with_shared(x_TD, ids_TK, routing.weights_TK)
        return self.experts(x_TD, ids_TK, weights_TK, complete=complete)

    def _with_shared(
        self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add the shared experts to every token's choices."""
        num_routed, num_tokens = self.spec.num_experts, len(x_TD)
        none = num_routed + self.num_shared
        ids_TK = ids_TK.masked_fill(ids_TK == num_routed, none)
        shared_S = torch.arange(num_routed, none, device=ids_TK.device, dtype=ids_TK.dtype)
        weight_T1 = weights_TK.new_ones(num_tokens, 1)
        if self.shared_gate is not None:
            weight_T1 = stable_sigmoid(self.shared_gate(x_TD)).to(weights_TK.dtype)
        return (
            torch.cat([ids_TK, shared_S.expand(num_tokens, -1)], dim=1),
            torch.cat([weights_TK, weight_T1.expand(-1, self.num_shared)], dim=1),
        )


def num_shared_experts(spec: MoESpec) -> int:
    """Return as how many routed experts the shared one counts.

    Raises:
        UnsupportedError: it cannot be computed together with them.
    """
    routed, shared = spec.expert, spec.shared
    kind = spec.router.kind
    if shared is None:
        reason = "there is no shared expert"
    elif kind in ("soft", "expert_choice"):
        reason = f"tokens do not choose experts under {kind!r} routing"
    elif spec.latent_dim is not None:
        reason = "routed experts work at another width than the shared one"
    elif (routed.gated, routed.activation) != (shared.gated, shared.activation):
        reason = "the shared expert has another activation than the routed ones"
    elif routed.bias or shared.bias:
        reason = "experts have biases"
    elif shared.hidden_dim % routed.hidden_dim:
        reason = f"width {shared.hidden_dim} is no multiple of {routed.hidden_dim}"
    else:
        return shared.hidden_dim // routed.hidden_dim
    raise UnsupportedError(f"{reason}, so nothing can be fused", fix="use the layer as it is")


@torch.no_grad()
def _stacked(routed: Experts, shared: MLP, num_shared: int) -> Experts:
    """Return the routed experts, followed by the shared one in ``num_shared`` slices."""
    first = "gate_up" if routed.spec.gated else "up"
    into_EMD, down_EDF = routed.get_parameter(first), routed.get_parameter("down")
    into_XD, down_DX = shared.get_parameter(f"{first}.weight"), shared.down.weight
    num_parts = 2 if routed.spec.gated else 1  # gate and up are cut alike
    parts_PSFD = into_XD.unflatten(0, (num_parts, num_shared, -1))
    stacked = Experts(
        routed.num_experts + num_shared, into_XD.shape[1], routed.spec,
        device=into_EMD.device, dtype=into_EMD.dtype,
    )  # fmt: skip
    stacked.get_parameter(first).copy_(
        torch.cat([into_EMD, parts_PSFD.transpose(0, 1).flatten(1, 2)])
    )
    slices_SDF = down_DX.unflatten(1, (num_shared, -1)).transpose(0, 1)
    stacked.get_parameter("down").copy_(torch.cat([down_EDF, slices_SDF]))
    return stacked
