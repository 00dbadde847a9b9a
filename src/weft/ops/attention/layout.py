"""Which cache slots each sequence of an engine step attends to. B sequences, S context."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PagedLayout:
    """Sequences laid end to end in one step, each with its part of the cache.

    Sequence b computes its last ``query_lengths[b]`` positions and attends, causally, to all
    ``context_lengths[b]`` positions, whose keys and values are already in the cache.

    Attributes:
        query_lengths: Tokens computed in this step.
        context_lengths: Tokens in the cache after this step, computed ones included.
        slots_BS: Cache slot of every position, int64, [B, max context], padded with 0.
        decode: Whether every sequence computes exactly one token.
    """

    query_lengths: tuple[int, ...]
    context_lengths: tuple[int, ...]
    slots_BS: Tensor
    decode: bool
