"""``ProcessGroup``: the collectives a trainer needs, at world 1 without any rendezvous."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class ProcessGroup:
    """A set of processes that compute together; ``None`` inside means this process alone.

    Every collective must be called by all ranks in the same order.

    Attributes:
        group: Torch's group, or none at world 1.
    """

    group: dist.ProcessGroup | None = None

    @classmethod
    def current(cls) -> ProcessGroup:
        """Return the group of all processes of this job; alone if none was initialised."""
        return cls(dist.group.WORLD if dist.is_available() and dist.is_initialized() else None)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return 1 if self.group is None else dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return 0 if self.group is None else dist.get_rank(self.group)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` on every rank by its sum over ranks; returns it."""
        if self.group is not None:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Replace ``tensor`` on every rank by that of rank ``source``; returns it."""
        if self.group is not None:
            dist.broadcast(tensor, group_src=source, group=self.group)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Return every rank's ``tensor`` along a new first axis, [size, ...]."""
        if self.group is None:
            return tensor.unsqueeze(0).clone()
        shards = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(shards, tensor.contiguous(), group=self.group)
        return torch.stack(shards)

    def reduce_scatter(self, rows: Tensor) -> Tensor:
        """Add ``rows`` over ranks and return this rank's share of axis 0."""
        share = rows.shape[0] // self._divides(rows)
        if self.group is None:
            return rows.clone()
        out = rows.new_empty((share, *rows.shape[1:]))
        dist.reduce_scatter_tensor(out, rows.contiguous(), group=self.group)
        return out

    def all_to_all(self, rows: Tensor) -> Tensor:
        """Send the r-th share of axis 0 to rank r; returns what came, in order of rank."""
        self._divides(rows)
        if self.group is None:
            return rows.clone()
        out = torch.empty_like(rows, memory_format=torch.contiguous_format)
        dist.all_to_all_single(out, rows.contiguous(), group=self.group)
        return out

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.group is not None:
            dist.barrier(group=self.group)

    def _divides(self, rows: Tensor) -> int:
        if rows.shape[0] % self.size:
            raise ConfigError(
                f"{rows.shape[0]} rows cannot be shared evenly by {self.size} processes",
                fix=f"make the first axis a multiple of {self.size}",
            )
        return self.size
