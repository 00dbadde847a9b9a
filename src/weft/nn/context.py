"""``StepContext``: what one forward pass knows about its tokens.

T tokens, N query heads, K key-value heads, H head width, R rotary pairs.

The same module runs in training and in the engine; only the context differs. ``packed`` holds
whole documents side by side that never see each other; ``paged`` continues sequences whose
earlier keys and values live in a ``KVCache``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from weft.nn.kv_cache import KVCache
from weft.nn.rotary import rotary_tables
from weft.ops import PagedLayout, packed_attention, paged_attention
from weft.spec import AttentionSpec, RotarySpec


class AttentionBackend(Protocol):
    """Where keys and values live and how queries meet them."""

    def attend(
        self, layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, spec: AttentionSpec
    ) -> Tensor:
        """Return the attended values, [T, N, H]."""
        ...


@dataclass(frozen=True)
class PagedBatch:
    """One engine step as tensors.

    Attributes:
        positions_T: Position of each token in its sequence.
        slots_T: Where each token's key and value are written.
        layout: Which slots each sequence attends to.
    """

    positions_T: Tensor
    slots_T: Tensor
    layout: PagedLayout


class StepContext:
    """Positions and the attention backend of one forward pass."""

    def __init__(self, positions_T: Tensor, backend: AttentionBackend) -> None:
        self.positions_T = positions_T
        self.backend = backend
        # Layers share their tables: they are computed once per distinct rotary spec and step.
        self._rotary: dict[tuple[RotarySpec, int], tuple[Tensor, Tensor]] = {}

    @classmethod
    def packed(
        cls, lengths: Sequence[int], *, device: torch.device | str | None = None
    ) -> StepContext:
        """Return the context of documents of these lengths laid end to end (training)."""
        return cls(document_positions(lengths, device=device), _Packed(tuple(lengths)))

    @classmethod
    def paged(cls, cache: KVCache, batch: PagedBatch) -> StepContext:
        """Return the context of an engine step over a paged cache."""
        return cls(batch.positions_T, _Paged(cache, batch))

    def attend(
        self, layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, spec: AttentionSpec
    ) -> Tensor:
        """Let each query meet the keys it may see; returns [T, N, H]."""
        return self.backend.attend(layer, q_TNH, k_TKH, v_TKH, spec)

    def rotary(self, spec: RotarySpec, rotary_dim: int) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of this step's positions, each [T, R]."""
        key = (spec, rotary_dim)
        if key not in self._rotary:
            self._rotary[key] = rotary_tables(spec, rotary_dim, self.positions_T)
        return self._rotary[key]


@dataclass(frozen=True)
class _Packed:
    lengths: tuple[int, ...]

    def attend(
        self, layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, spec: AttentionSpec
    ) -> Tensor:
        return packed_attention(
            q_TNH, k_TKH, v_TKH, self.lengths, scale=spec.softmax_scale, window=spec.window
        )


@dataclass(frozen=True)
class _Paged:
    cache: KVCache
    batch: PagedBatch

    def attend(
        self, layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, spec: AttentionSpec
    ) -> Tensor:
        self.cache.write(layer, k_TKH, v_TKH, self.batch.slots_T)
        return paged_attention(
            q_TNH,
            self.cache.keys[layer],
            self.cache.values[layer],
            self.batch.layout,
            scale=spec.softmax_scale,
            window=spec.window,
        )


def document_positions(
    lengths: Sequence[int], *, device: torch.device | str | None = None
) -> Tensor:
    """Return 0, 1, 2 ... restarting at each document, shape [sum(lengths)].

    >>> document_positions([2, 3]).tolist()
    [0, 1, 0, 1, 2]
    """
    lengths_B = torch.tensor(lengths, dtype=torch.int64)
    starts_B = lengths_B.cumsum(0) - lengths_B
    positions_T = torch.arange(int(lengths_B.sum())) - starts_B.repeat_interleave(lengths_B)
    return positions_T.to(device) if device is not None else positions_T
