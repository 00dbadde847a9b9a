"""Mixing sources by weight without any state."""

from __future__ import annotations

import math
from collections.abc import Sequence

from weft.core.errors import ConfigError
from weft.data.permutation import derive_seed
from weft.data.shards import TokenShards

_ONE = 2**64


class Mixture:
    """Several token shards, drawn in proportion to their weights.

    Item ``index`` comes from source s, as that source's own item number i; both are functions of
    ``(index, seed)``. The first source takes item g of n when ``floor(g * p + u)`` steps, with p
    its share and u in [0, 1) from the seed; the rest is divided the same way among the others.
    Over u the expectation of every count is exactly its share, and along one run a count is never
    further from it than the number of sources.

    Raises:
        ConfigError: weights that are negative, all zero or not one for each source.
    """

    def __init__(self, sources: Sequence[TokenShards], weights: Sequence[float]) -> None:
        if len(sources) != len(weights) or not sources:
            raise ConfigError(
                f"there are {len(sources)} sources and {len(weights)} weights",
                fix="give one weight for each source",
            )
        if any(not math.isfinite(weight) or weight < 0 for weight in weights) or not sum(weights):
            raise ConfigError(
                f"weights are {list(weights)}", fix="give weights of at least 0, one of them above"
            )
        self.sources = tuple(sources)
        self.weights = tuple(weight / sum(weights) for weight in weights)
        # The last positive source takes what is left, so that no item falls through by rounding.
        last = max(index for index, weight in enumerate(weights) if weight > 0)
        tails = [math.fsum(self.weights[index:]) for index in range(len(weights))]
        self._shares = [
            _ONE if index == last else round(weight / tail * _ONE) if weight else 0
            for index, (weight, tail) in enumerate(zip(self.weights, tails, strict=True))
        ]

    def choose(self, index: int, seed: int) -> tuple[int, int]:
        """Return the source of item ``index`` and the item's number within that source."""
        for source, share in enumerate(self._shares):
            phase = derive_seed(seed, "mixture", source)
            before = (index * share + phase) // _ONE
            if ((index + 1) * share + phase) // _ONE > before:
                return source, before
            index -= before
        raise AssertionError("the last source takes every item")
