"""Experts on several ranks that have tokens of their own: data-parallel attention's other half.

T tokens of this rank, M most tokens of a rank, G ranks, A = G M rows of all, D width, E experts,
K experts per token.

Each rank attends for its own sequences with whole attention weights, so no key-value head is kept
twice (DeepSeek-V3's inference, arXiv:2412.19437, section 3.4). Routers and shared experts are whole
and see own tokens alone; only routed experts are spread, and tokens travel to them and back.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.core.errors import ConfigError, UnsupportedError
from weft.dist.collectives import Collectives
from weft.nn.moe.experts import Experts
from weft.nn.moe.layer import MoE
from weft.nn.moe.soft import SoftMoE


class TokenRanks(Collectives, Protocol):
    """Ranks that exchange rows; ``weft.dist.group.ProcessGroup`` is one of these."""

    def reduce_scatter(self, rows: Tensor) -> Tensor:
        """Add ``rows`` over ranks and return this rank's share of axis 0."""
        ...


class SpreadExperts(nn.Module):
    """This rank's share of a layer's experts, which compute for the tokens of all ranks.

    Calls are collective: each rank brings any number of tokens, also none, and gets the results of
    its own. Every rank gathers all tokens and chooses those of its experts, and the sums travel
    back; ranks with few tokens send as much as the one with most.

    Args:
        whole: All experts of the layer; this rank's are copied out of it.
        group: The ranks.

    Raises:
        ConfigError: the experts do not divide among the ranks.
    """

    def __init__(self, whole: Experts, group: TokenRanks) -> None:
        super().__init__()
        if whole.num_experts % group.size:
            raise ConfigError(
                f"{whole.num_experts} experts do not divide among {group.size} ranks",
                fix="use a number of ranks that divides the experts",
            )
        self.num_experts = whole.num_experts
        self.group = group
        self.own = _share(whole, group.rank, group.size)

    def forward(
        self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, *, complete: bool = False
    ) -> Tensor:
        """Return each own token's weighted sum of its experts, [T, D]; see ``Experts``."""
        num_tokens = x_TD.shape[0]
        counts_G = self.group.all_gather(torch.tensor([num_tokens], device=x_TD.device))
        num_missing = int(counts_G.max()) - num_tokens
        x_AD = self._gather(x_TD, num_missing, 0)
        ids_AK = self._gather(ids_TK, num_missing, self.num_experts) - self._first
        weights_AK = self._gather(weights_TK, num_missing, 0)
        other_AK = (ids_AK < 0) | (ids_AK >= self.own.num_experts)
        y_AD = self.own(x_AD, ids_AK.masked_fill(other_AK, self.own.num_experts), weights_AK)
        return self.group.reduce_scatter(y_AD)[:num_tokens]

    @property
    def _first(self) -> int:
        return self.group.rank * self.own.num_experts

    def _gather(self, rows: Tensor, num_missing: int, filler: int) -> Tensor:
        padded = F.pad(rows, (0, 0, 0, num_missing), value=filler)
        return self.group.all_gather(padded).flatten(0, 1)


def spread_experts(model: nn.Module, group: TokenRanks) -> int:
    """Replace the experts of every mixture in ``model`` by this rank's share; returns how many.

    What is left computes as before, on each rank's own sequences. A rank without work calls the
    model with tokens that nobody needs, because the others wait for it in every layer.

    Raises:
        ConfigError: experts that do not divide among the ranks.
        UnsupportedError: a mixture in which tokens of other sequences decide who is served.
    """
    mixtures = [_checked(each) for each in model.modules() if isinstance(each, MoE | SoftMoE)]
    for mixture in mixtures:
        mixture.set_submodule("experts", SpreadExperts(mixture.experts, group))
    return len(mixtures)


def _checked(mixture: MoE | SoftMoE) -> MoE:
    spec = mixture.spec
    per_token = isinstance(mixture, MoE) and spec.router.kind != "expert_choice"
    if not per_token or spec.capacity_factor is not None:
        raise UnsupportedError(
            "tokens compete for places in this mixture, and a rank sees only its own",
            fix="choose a mixture in which every token gets its experts, or use one rank",
        )
    return mixture


@torch.no_grad()
def _share(whole: Experts, rank: int, num_ranks: int) -> Experts:
    down_EDF = whole.get_parameter("down")
    size = whole.num_experts // num_ranks
    # The input width: the last axis of whichever tensor comes first.
    dim = next(p for name, p in whole.named_parameters() if name in ("up", "gate_up")).shape[-1]
    own = Experts(
        size, dim, whole.spec, out_dim=down_EDF.shape[1],
        device=down_EDF.device, dtype=down_EDF.dtype,
    )  # fmt: skip
    for name, parameter in own.named_parameters():
        parameter.copy_(whole.get_parameter(name)[rank * size : (rank + 1) * size])
    return own
