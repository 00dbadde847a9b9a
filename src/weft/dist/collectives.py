"""What a model that is spread over ranks asks of them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Collectives(Protocol):
    """Operations that all ranks call in the same order; ``ProcessGroup`` is one of these."""

    @property
    def size(self) -> int:
        """How many ranks there are."""
        ...

    @property
    def rank(self) -> int:
        """This rank's number, from 0."""
        ...

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` on every rank by its sum over ranks; returns it.

        All ranks get the same bits.
        """
        ...

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Return every rank's ``tensor`` along a new first axis, [size, ...]."""
        ...

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Replace ``tensor`` on every rank by that of rank ``source``; returns it."""
        ...
