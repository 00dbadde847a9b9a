"""How a tensor lies in a file of theirs when it does not lie as ours does.

A layout only moves numbers: ``to_theirs(to_ours(x))`` is ``x``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Layout(Protocol):
    """A reordering of one tensor in both directions."""

    def to_ours(self, tensor: Tensor) -> Tensor:
        """Return their tensor in our order."""
        ...

    def to_theirs(self, tensor: Tensor) -> Tensor:
        """Return our tensor in their order."""
        ...


@dataclass(frozen=True)
class Transposed:
    """The last two axes are swapped (GPT-2's Conv1D, gpt-oss's experts)."""

    def to_ours(self, tensor: Tensor) -> Tensor:
        """Swap the last two axes."""
        return tensor.transpose(-1, -2)

    def to_theirs(self, tensor: Tensor) -> Tensor:
        """Swap the last two axes."""
        return tensor.transpose(-1, -2)


@dataclass(frozen=True)
class Alternating:
    """Rows alternate between ``num`` parts that lie one after the other in ours.

    Attributes:
        num: Parts, such as gate and up.
        axis: The axis of the rows.
    """

    num: int
    axis: int = 0

    def to_ours(self, tensor: Tensor) -> Tensor:
        """Gather every num-th row."""
        return (
            tensor.unflatten(self.axis, (-1, self.num))
            .transpose(self.axis, self._next)
            .flatten(self.axis, self._next)
        )

    def to_theirs(self, tensor: Tensor) -> Tensor:
        """Interleave the parts."""
        return (
            tensor.unflatten(self.axis, (self.num, -1))
            .transpose(self.axis, self._next)
            .flatten(self.axis, self._next)
        )

    @property
    def _next(self) -> int:
        assert self.axis >= 0
        return self.axis + 1


@dataclass(frozen=True)
class Chain:
    """Several layouts; ``to_ours`` applies them from first to last."""

    layouts: tuple[Layout, ...]

    def to_ours(self, tensor: Tensor) -> Tensor:
        """Apply each in turn."""
        for layout in self.layouts:
            tensor = layout.to_ours(tensor)
        return tensor

    def to_theirs(self, tensor: Tensor) -> Tensor:
        """Undo each, last first."""
        for layout in reversed(self.layouts):
            tensor = layout.to_theirs(tensor)
        return tensor


@dataclass(frozen=True)
class Inserted:
    """Theirs has further axes of length 1.

    Attributes:
        axes: Their places in theirs, rising.
    """

    axes: tuple[int, ...]

    def to_ours(self, tensor: Tensor) -> Tensor:
        """Drop them."""
        return tensor.squeeze(self.axes)

    def to_theirs(self, tensor: Tensor) -> Tensor:
        """Put them in."""
        for axis in self.axes:
            tensor = tensor.unsqueeze(axis)
        return tensor


@dataclass(frozen=True)
class GroupedRows:
    """Rows lie group by group, in each a few of every part; ours has part by part.

    Attributes:
        num_groups: Groups, such as key heads.
        sizes: Rows of each part in one group.
    """

    num_groups: int
    sizes: tuple[int, ...]

    def to_ours(self, tensor: Tensor) -> Tensor:
        """Gather the rows of each part."""
        groups = tensor.unflatten(0, (self.num_groups, sum(self.sizes)))
        return torch.cat([part.flatten(0, 1) for part in groups.split(self.sizes, dim=1)])

    def to_theirs(self, tensor: Tensor) -> Tensor:
        """Deal the rows of each part out to the groups."""
        parts = tensor.split([self.num_groups * size for size in self.sizes])
        groups = [
            part.unflatten(0, (self.num_groups, size))
            for part, size in zip(parts, self.sizes, strict=True)
        ]
        return torch.cat(groups, dim=1).flatten(0, 1)
