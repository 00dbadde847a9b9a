"""Sequences of unequal lengths cut into chunks of one length, so that all chunks are one batch.

T tokens, B sequences, M chunks of all sequences, C tokens of a chunk, N heads.

Chunks are ordered by their number within the sequence, and sequences by falling length; so the
chunks that continue in step s are one slice, and belong to the first sequences of the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Chunks:
    """Where every token lies.

    Attributes:
        size: Tokens of a chunk (C).
        steps: Chunks of each step, as slices of M.
        order_B: Sequences by falling number of chunks.
        places_T: Index into M * C of each token; none where tokens just lie end to end.
        fill_M: How many tokens each chunk has.
    """

    size: int
    steps: tuple[slice, ...]
    order_B: tuple[int, ...]
    places_T: Tensor | None
    fill_M: tuple[int, ...]

    def split(self, x_TN: Tensor) -> Tensor:
        """Return [T, N, ...] as [M, N, C, ...], zeros where a chunk has no token."""
        num_places = len(self.fill_M) * self.size
        if self.places_T is None:
            padding = x_TN.new_zeros(num_places - len(x_TN), *x_TN.shape[1:])
            padded = torch.cat([x_TN, padding]) if len(padding) else x_TN
        else:
            empty = x_TN.new_zeros(num_places, *x_TN.shape[1:])
            padded = empty.index_copy(0, self.places_T, x_TN)
        return padded.unflatten(0, (-1, self.size)).transpose(1, 2)

    def join(self, x_MNC: Tensor, num_tokens: int) -> Tensor:
        """Undo ``split``: [M, N, C, ...] as [T, N, ...]."""
        x = x_MNC.transpose(1, 2).flatten(0, 1)
        return x[:num_tokens] if self.places_T is None else x.index_select(0, self.places_T)

    def carry(
        self, initial_B: Tensor, advance: Callable[[slice, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Carry a state from chunk to chunk of each sequence.

        Args:
            initial_B: State each sequence starts with.
            advance: From the chunks of a step and their states to the states behind them.

        Returns:
            The state each chunk starts with, [M, ...], and the last of each sequence, [B, ...].
        """
        order_B = torch.tensor(self.order_B, device=initial_B.device)
        state = initial_B.index_select(0, order_B)
        starts, ended = [], []
        for chunks in self.steps:
            num_active = chunks.stop - chunks.start
            ended.append(state[num_active:])
            state = state[:num_active]
            starts.append(state)
            state = advance(chunks, state)
        finals = torch.cat([state, *reversed(ended)])
        return torch.cat(starts), finals.index_select(0, order_B.argsort())


def cut(lengths: Sequence[int], size: int, device: torch.device) -> Chunks:
    """Cut sequences of these lengths, all at least 1, into chunks of at most ``size`` tokens."""
    lengths_B = np.asarray(lengths, dtype=np.int64)
    counts_B = -(-lengths_B // size)
    order_B = np.argsort(-counts_B, kind="stable")
    active_S = (counts_B[:, None] > np.arange(counts_B.max())).sum(0)
    ends_S = active_S.cumsum()
    steps = tuple(slice(int(end - n), int(end)) for end, n in zip(ends_S, active_S, strict=True))
    # Chunk s of sequence b is row (start of step s) + (rank of b).
    rank_B = np.argsort(order_B)
    offsets_T = np.arange(lengths_B.sum()) - np.repeat(lengths_B.cumsum() - lengths_B, lengths_B)
    rows_T = (ends_S - active_S)[offsets_T // size] + np.repeat(rank_B, lengths_B)
    places_T = rows_T * size + offsets_T % size
    end_to_end = bool((places_T == np.arange(len(places_T))).all())
    return Chunks(
        size=size,
        steps=steps,
        order_B=tuple(order_B.tolist()),
        places_T=None if end_to_end else torch.from_numpy(places_T).to(device),
        fill_M=tuple(np.bincount(rows_T, minlength=int(ends_S[-1])).tolist()),
    )


def chunk_size(lengths: Sequence[int], largest: int, multiple: int) -> int:
    """Return ``largest``, or less where no sequence is as long."""
    return min(largest, -(-max(lengths) // multiple) * multiple)
