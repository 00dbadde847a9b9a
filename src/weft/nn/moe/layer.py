"""The mixture-of-experts layer. T tokens, D model width, E experts, K experts per token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.nn.context import StepContext
from weft.nn.linear import Linear
from weft.nn.mlp import MLP
from weft.nn.moe.choice import drop_overflow, expert_choice, scores_of
from weft.nn.moe.experts import Experts
from weft.nn.moe.record import RoutingRecord
from weft.nn.moe.router import Router
from weft.nn.moe.soft import SoftMoE
from weft.ops.activation.stable import stable_sigmoid
from weft.spec import MoESpec


class MoE(nn.Module):
    """Each token's K best experts, weighted, plus a shared expert for all.

    With ``latent_dim`` the routed experts work on a narrower projection of the token
    (LatentMoE, arXiv:2601.18089); router and shared expert see the token itself.
    """

    def __init__(
        self,
        dim: int,
        spec: MoESpec,
        *,
        layer: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        where = {"device": device, "dtype": dtype}
        width = spec.latent_dim or dim
        self.router = Router(dim, spec, layer=layer, **where)
        self.experts = Experts(spec.num_experts, width, spec.expert, **where)
        self.latent_down = self.latent_up = self.shared = self.shared_gate = None
        if spec.latent_dim is not None:
            self.latent_down = Linear(dim, width, bias=False, **where)
            self.latent_up = Linear(width, dim, bias=False, **where)
        if spec.shared is not None:
            self.shared = MLP(dim, spec.shared, **where)
        if spec.shared_gate:
            self.shared_gate = Linear(dim, 1, bias=False, **where)

    def forward(self, x_TD: Tensor, ctx: StepContext) -> Tensor:
        """Transform each token of [T, D]; writes this layer's record into ``ctx.routing``."""
        inner_TD = x_TD if self.latent_down is None else self.latent_down(x_TD)
        if self.spec.router.kind == "expert_choice":
            y_TD = self._expert_choice(x_TD, inner_TD)
        else:
            y_TD = self._token_choice(x_TD, inner_TD, ctx)
        if self.latent_up is not None:
            y_TD = self.latent_up(y_TD)
        return y_TD if self.shared is None else y_TD + self._shared(x_TD)

    def _token_choice(self, x_TD: Tensor, inner_TD: Tensor, ctx: StepContext) -> Tensor:
        given_TK = ctx.given_experts.get(self.layer)
        routing = self.router(x_TD, tokens_T=ctx.tokens_T, given_TK=given_TK)
        ctx.routing[self.layer] = RoutingRecord(self.layer, self.spec, *routing)
        ids_TK, capacity = routing.ids_TK, self.spec.capacity(x_TD.shape[0])
        if capacity is not None:
            ids_TK = drop_overflow(ids_TK, self.spec.num_experts, capacity)
        complete = capacity is None and self.spec.router.kind != "gshard"
        return self.experts(inner_TD, ids_TK, routing.weights_TK, complete=complete)

    def _expert_choice(self, x_TD: Tensor, inner_TD: Tensor) -> Tensor:
        num_tokens = x_TD.shape[0]
        num_taken = self.spec.capacity(num_tokens)
        if num_taken is None:
            num_taken = -(-num_tokens * self.spec.top_k // self.spec.num_experts)
        scores_TE = scores_of(self.router.logits(x_TD), self.spec.router)
        tokens_EC, weights_EC = expert_choice(scores_TE, min(num_taken, num_tokens))
        counts_E = tokens_EC.new_full((self.spec.num_experts,), tokens_EC.shape[1])
        y_AD = self.experts.rows(inner_TD.index_select(0, tokens_EC.flatten()), counts_E)
        weighted_AD = (y_AD * weights_EC.reshape(-1, 1)).to(y_AD.dtype)
        return torch.zeros_like(inner_TD, dtype=y_AD.dtype).index_add(
            0, tokens_EC.flatten(), weighted_AD
        )

    def _shared(self, x_TD: Tensor) -> Tensor:
        assert self.shared is not None
        y_TD = self.shared(x_TD)
        return y_TD if self.shared_gate is None else stable_sigmoid(self.shared_gate(x_TD)) * y_TD


def build_moe(
    dim: int,
    spec: MoESpec,
    *,
    layer: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Return the module of a mixture: ``SoftMoE`` for soft slots, ``MoE`` for every other kind."""
    module = SoftMoE if spec.router.kind == "soft" else MoE
    return module(dim, spec, layer=layer, device=device, dtype=dtype)
