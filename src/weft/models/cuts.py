"""How one tensor is cut among ranks, as data.

A tensor is cut along one axis. The axis is a row of stretches (query, key and value rows of a
merged projection), and each stretch is dealt out in equal units, such as heads, or kept whole by
every rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from weft.core.errors import ConfigError

PartT = TypeVar("PartT", covariant=True)


class Span(NamedTuple):
    """A run of one axis that a rank holds: where it begins in the whole tensor and in its own."""

    start: int
    size: int
    local_start: int


@dataclass(frozen=True)
class Cut:
    """A stretch of an axis and how many units it is dealt out in.

    Attributes:
        size: Length of the stretch.
        num_units: Units, such as heads; 0 means that every rank keeps the stretch whole.
    """

    size: int
    num_units: int = 0

    def share(self, rank: int, num_ranks: int) -> tuple[int, int]:
        """Return start and length of a rank's share.

        With fewer units than ranks, neighbouring ranks hold copies of one unit. Units that do not
        divide evenly leave the last ranks less.

        >>> [Cut(12, 3).share(rank, 2) for rank in range(2)]
        [(0, 8), (8, 4)]
        """
        if self.num_units == 0:
            return 0, self.size
        unit = self.size // self.num_units
        if self.num_units < num_ranks:
            return rank * self.num_units // num_ranks * unit, unit
        per_rank = -(-self.num_units // num_ranks)
        first = min(rank * per_rank, self.num_units)
        last = min(first + per_rank, self.num_units)
        return first * unit, (last - first) * unit


@dataclass(frozen=True)
class Sharding:
    """How one tensor is cut.

    Attributes:
        axis: The axis that is cut.
        cuts: Its stretches, in order; none means that every rank holds the whole tensor.
        first_only: The tensor is added to a sum over ranks: all but the first hold zeros.
    """

    axis: int = 0
    cuts: tuple[Cut, ...] = ()
    first_only: bool = False

    def spans(self, length: int, rank: int, num_ranks: int) -> list[Span]:
        """Return what a rank holds of an axis of this length, in order."""
        spans, start, local_start = [], 0, 0
        for cut in self.cuts or (Cut(length),):
            offset, size = cut.share(rank, num_ranks)
            spans.append(Span(start + offset, size, local_start))
            start, local_start = start + cut.size, local_start + size
        assert start == length, f"the cuts cover {start} of {length}"
        return spans

    def take(self, tensor: Tensor, rank: int, num_ranks: int) -> Tensor:
        """Return a rank's part of a whole tensor."""
        if self.first_only and rank > 0:
            return torch.zeros_like(tensor)
        if not self.cuts:
            return tensor
        spans = self.spans(tensor.shape[self.axis], rank, num_ranks)
        return torch.cat([tensor.narrow(self.axis, s.start, s.size) for s in spans], self.axis)


WHOLE = Sharding()


@dataclass(frozen=True)
class PartPlan(Generic[PartT]):
    """How a mixer or feed-forward part is spread over ranks; names are relative to it.

    Attributes:
        local: What one rank computes.
        tensors: How its tensors are cut; those not named stay whole.
        sums: Modules whose outputs are addends of the ranks; "" is the part itself.
        norms: Norms over a width that is cut.
        experts: Modules that hold experts of which a rank has only some.
    """

    local: PartT
    tensors: Mapping[str, Sharding]
    sums: tuple[str, ...]
    norms: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()


def shared_evenly(what: str, num: int, num_ranks: int, *, may_repeat: bool = False) -> int:
    """Return how many of ``num`` units each rank has.

    Args:
        what: The units, for people.
        num: How many there are.
        num_ranks: How many ranks share them.
        may_repeat: Ranks may hold copies of a unit where there are more ranks than units.

    Raises:
        ConfigError: the units do not divide among the ranks.
    """
    if num % num_ranks == 0:
        return num // num_ranks
    if may_repeat and num_ranks % num == 0:
        return 1
    sizes = [n for n in range(1, num + 1) if num % n == 0]
    raise ConfigError(
        f"{num} {what} do not divide among {num_ranks} ranks",
        fix=f"use one of {', '.join(map(str, sizes))} ranks",
    )


def rows(name: str, *cuts: Cut, bias: bool = False) -> dict[str, Sharding]:
    """Cut a projection into a width that is shared: weight and bias by rows."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return {f"{name}.{kind}": Sharding(0, cuts) for kind in kinds}


def columns(name: str, cut: Cut, *, bias: bool = False) -> dict[str, Sharding]:
    """Cut a projection out of a shared width by columns; its bias joins the sum once."""
    weight = {f"{name}.weight": Sharding(1, (cut,))}
    return weight | {f"{name}.bias": Sharding(first_only=True)} if bias else weight


def prefixed(prefix: str, tensors: Mapping[str, Sharding]) -> dict[str, Sharding]:
    """Put a prefix before all names."""
    return {prefix + name: sharding for name, sharding in tensors.items()}
