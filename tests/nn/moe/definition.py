"""A mixture of experts as its definition: every expert on every token, in a loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.nn.moe.layer import MoE
from weft.spec import MLPSpec, MoESpec, RouterSpec


def expert_output(moe: MoE, expert: int, x_TD: Tensor) -> Tensor:
    """Return one SwiGLU (or plain) expert applied to all tokens."""
    experts, spec = moe.experts, moe.spec.expert
    first = experts.gate_up if spec.gated else experts.up
    bias = experts.gate_up_bias if spec.gated else experts.up_bias
    hidden = F.linear(x_TD, first[expert], None if bias is None else bias[expert])
    if spec.gated:
        gate, up = hidden.chunk(2, -1)
        hidden = F.silu(gate) * up
    else:
        hidden = hidden.relu()
    down_bias = None if experts.down_bias is None else experts.down_bias[expert]
    return F.linear(hidden, experts.down[expert], down_bias)


def dense_loop(moe: MoE, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """Return the weighted sum over all experts, those not chosen with weight zero."""
    total = torch.zeros_like(x_TD)
    for expert in range(moe.spec.num_experts):
        weight_T = (weights_TK * (ids_TK == expert)).sum(1)
        total = total + weight_T[:, None] * expert_output(moe, expert, x_TD)
    return total


def small(
    num_experts: int = 8,
    top_k: int = 2,
    *,
    expert: MLPSpec | None = None,
    router: RouterSpec | None = None,
    **rest,
) -> MoE:
    """Return a small mixture of width 16."""
    torch.manual_seed(0)
    spec = MoESpec(num_experts, top_k, expert or MLPSpec(12), router or RouterSpec(), **rest)
    return MoE(16, spec, layer=0)
