"""Which cache slots each sequence of an engine step attends to. B sequences, S context."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from weft.ops.attention.rule import ScoreRule


@dataclass(frozen=True)
class PagedLayout:
    """Sequences laid end to end in one step, each with its part of the cache.

    Sequence b computes its last ``query_lengths[b]`` positions and attends to all
    ``context_lengths[b]`` positions, whose keys and values are already in the cache.
    What every layer of a step needs is computed once and kept.

    Attributes:
        query_lengths: Tokens computed in this step.
        context_lengths: Tokens in the cache after this step, computed ones included.
        slots_BS: Cache slot of every position, int64, [B, max context]. Padding names slots,
            too; they are read with weight zero, so they should be the sequence's own.
        decode: Whether every sequence computes exactly one token.
        apart: Give each token the same bits whatever it is computed with: who has no kernel that
            does so anyway computes one of ``single_tokens`` at a time.
    """

    query_lengths: tuple[int, ...]
    context_lengths: tuple[int, ...]
    slots_BS: Tensor
    decode: bool
    apart: bool = False

    def __post_init__(self) -> None:
        """Check what the C kernel, which reads through these numbers, could not survive."""
        num_rows, width = self.slots_BS.shape
        assert len(self.query_lengths) == len(self.context_lengths) == num_rows
        assert max(self.context_lengths, default=0) <= width

    @cached_property
    def tokens_T(self) -> Tensor:
        """0, 1, 2 ...: where each token's query lies, int64."""
        return torch.arange(sum(self.query_lengths))

    @cached_property
    def rows_T(self) -> Tensor:
        """The sequence each token belongs to, int64."""
        rows_B = torch.arange(len(self.query_lengths))
        if self.decode:
            return rows_B
        return rows_B.repeat_interleave(torch.tensor(self.query_lengths))

    @cached_property
    def positions_T(self) -> Tensor:
        """The position each token has in its sequence, int64."""
        lasts_B = torch.tensor(self.context_lengths, dtype=torch.int64) - 1
        if self.decode:
            return lasts_B
        queries_B = torch.tensor(self.query_lengths, dtype=torch.int64)
        ends_B = queries_B.cumsum(0) - 1
        back_T = ends_B[self.rows_T] - torch.arange(int(queries_B.sum()))
        return lasts_B[self.rows_T] - back_T

    @cached_property
    def num_scores(self) -> int:
        """How many query-key pairs there are at most."""
        pairs = zip(self.query_lengths, self.context_lengths, strict=True)
        return sum(queries * context for queries, context in pairs)

    @cached_property
    def single_tokens(self) -> list[PagedLayout]:
        """A layout for each token alone, whose shapes depend on the token's position only."""
        return [
            PagedLayout((1,), (place + 1,), self.slots_BS[row : row + 1, : place + 1], decode=True)
            for row, place in zip(self.rows_T.tolist(), self.positions_T.tolist(), strict=True)
        ]

    def visible_BS(self, window: int | None, num_first: int = 0) -> Tensor:
        """Return which cached positions the last token of each sequence sees, bool.

        ``window`` and ``num_first`` are those of ``ScoreRule``.
        """
        key = (window, num_first)
        if key not in self._visible:
            rule = ScoreRule(1.0, window, num_first=num_first)
            self._visible[key] = rule.visible(self.distances_BS)
        return self._visible[key]

    @cached_property
    def distances_BS(self) -> Tensor:
        """Each cached position minus that of the sequence's last token, int64."""
        device = self.slots_BS.device
        lasts_B1 = torch.tensor(self.context_lengths, device=device).unsqueeze(1) - 1
        return torch.arange(self.slots_BS.shape[1], device=device) - lasts_B1

    @cached_property
    def _visible(self) -> dict[tuple[int | None, int], Tensor]:
        return {}
