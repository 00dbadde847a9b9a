"""``ShardedDecoder``: what one rank computes of a model, and where the ranks meet.

T tokens, D model width, V vocabulary, E experts, K experts per token.

The layers are the ordinary ones, built from the plan's local description; what is special is
applied from outside by name: sums behind projections out of a shared width, norms that span ranks,
a vocabulary and experts of which a rank has some. A block costs two sums over ranks, as in
arXiv:1909.08053, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.core.errors import CheckpointError, UnsupportedError
from weft.dist.collectives import Collectives
from weft.models.decoder import Decoder
from weft.models.sharding import ShardingPlan
from weft.nn.embedding import Embedding
from weft.nn.moe.experts import Experts
from weft.nn.norm import RMSNorm
from weft.ops import linear


class ShardedDecoder(Decoder):
    """One rank's part of a decoder.

    Its methods are collectives: all ranks call them together, on the same tokens. Weights are on
    the meta device until they are loaded (``load_whole``, or
    ``weft.checkpoint.sharded.load_sharded``).

    Args:
        plan: How the model is spread.
        group: The ranks.
        dtype: Element type of the parameters.
    """

    def __init__(
        self, plan: ShardingPlan, group: Collectives, *, dtype: torch.dtype | None = None
    ) -> None:
        assert plan.num_ranks == group.size, (plan.num_ranks, group.size)
        super().__init__(plan.local, device="meta", dtype=dtype)
        self.plan = plan
        self.group = group
        self._split_vocabulary()
        for name in plan.experts:
            self._split_experts(name)
        for name in plan.norms:
            self.set_submodule(name, _whole_norm(self.get_submodule(name), group))
        for name in plan.sums:
            self.get_submodule(name).register_forward_hook(self._sum_over_ranks)

    def unembed(self, hidden_TD: Tensor) -> Tensor:
        """Return the scores of all tokens of the vocabulary, [T, V], on every rank."""
        weight_RD = (self.embed if self.head is None else self.head).weight
        scores_TR = linear(hidden_TD, weight_RD.to(hidden_TD.dtype))
        missing = self.plan.rows_per_rank - scores_TR.shape[1]
        gathered_GTR = self.group.all_gather(F.pad(scores_TR, (0, missing)))
        # Only the last ranks have fewer rows, so what was padded is at the end.
        return gathered_GTR.transpose(0, 1).flatten(1)[:, : self.spec.vocab_size]

    @property
    def head_weight(self) -> Tensor:
        """Refused: no rank has it.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"the output projection is spread over {self.group.size} ranks",
            fix="use a model on one rank to train or to score",
        )

    def _split_vocabulary(self) -> None:
        start, num_rows = self.plan.vocabulary(self.group.rank)
        weight_RD = self.embed.weight.new_empty(num_rows, self.spec.dim)
        self.embed = SplitEmbedding(weight_RD, start, self.group)
        if self.head is not None:
            self.head.weight = nn.Parameter(torch.empty_like(weight_RD))

    def _split_experts(self, name: str) -> None:
        whole = self.get_submodule(name)
        assert isinstance(whole, Experts)
        num_experts = whole.num_experts // self.group.size
        down_EDF = whole.get_parameter("down")
        local = Experts(
            num_experts, down_EDF.shape[1], whole.spec, device="meta", dtype=down_EDF.dtype
        )
        first = self.group.rank * num_experts
        local.register_forward_pre_hook(_OwnExperts(first, num_experts), with_kwargs=True)
        self.set_submodule(name, local)

    def _sum_over_ranks(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return self.group.all_reduce(output)


class SplitEmbedding(Embedding):
    """Vectors of some tokens of a vocabulary; those of the others come from the other ranks."""

    def __init__(self, weight_RD: Tensor, start: int, group: Collectives) -> None:
        super().__init__(len(weight_RD), weight_RD.shape[1], _weight=weight_RD)
        self.start = start
        self.group = group

    def forward(self, input: Tensor) -> Tensor:
        """Return the vector of each token, [T, D]; the argument has torch's name."""
        places_T = input - self.start
        other_T = (places_T < 0) | (places_T >= self.weight.shape[0])
        vectors_TD = F.embedding(places_T.masked_fill(other_T, 0), self.weight)
        # One rank adds the vector, the others zeros: the sum is exact.
        return self.group.all_reduce(vectors_TD.masked_fill_(other_T[:, None], 0.0))


class SplitRMSNorm(RMSNorm):
    """RMSNorm of a vector of which each rank holds an equally long part.

    The mean square of the whole is the mean of those of the parts; heads that several ranks hold
    copies of count equally often.
    """

    group: Collectives

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [T, part of dim]."""
        wide = x.float()
        squares_T1 = wide.square().mean(-1, keepdim=True)
        squares_T1 = self.group.all_reduce(squares_T1) / self.group.size
        unit = wide * torch.rsqrt(squares_T1 + self.eps)
        if self.float32_weight:
            return (unit * (self.weight.float() + float(self.zero_centred))).to(x.dtype)
        weight = self.weight.float() + 1.0 if self.zero_centred else self.weight
        return unit.to(x.dtype) * weight.to(x.dtype)


class _OwnExperts:
    """Before a rank's experts: names them from 0 and leaves the others out."""

    def __init__(self, first: int, num_experts: int) -> None:
        self.first, self.num_experts = first, num_experts

    def __call__(
        self, module: nn.Module, args: tuple[Tensor, Tensor, Tensor], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
        x_TD, ids_TK, weights_TK = args
        ids_TK = ids_TK - self.first
        other_TK = (ids_TK < 0) | (ids_TK >= self.num_experts)
        own_TK = ids_TK.masked_fill(other_TK, self.num_experts)
        return (x_TD, own_TK, weights_TK), {"complete": False}


@torch.no_grad()
def load_whole(model: ShardedDecoder, tensors: Mapping[str, Tensor]) -> None:
    """Fill a rank's weights from the whole model's state dict, in place.

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    for name, target in model.state_dict().items():
        if name not in tensors:
            raise CheckpointError(f"the state dict has no tensor {name!r}")
        part = model.plan.take(name, tensors[name], model.group.rank)
        if part.shape != target.shape:
            raise CheckpointError(
                f"tensor {name!r} gives this rank {tuple(part.shape)}, not {tuple(target.shape)}",
                fix="the state dict and the model's description do not belong together",
            )
        target.copy_(part)


def _whole_norm(local: nn.Module, group: Collectives) -> SplitRMSNorm:
    assert isinstance(local, RMSNorm)
    norm = SplitRMSNorm(
        local.weight.shape[0],
        local.eps,
        zero_centred=local.zero_centred,
        float32_weight=local.float32_weight,
        device=local.weight.device,
        dtype=local.weight.dtype,
    )
    norm.group = group
    return norm
