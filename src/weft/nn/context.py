"""``StepContext``: what one forward pass knows about its tokens.

T tokens, N query heads, K key-value heads, H head width, R rotary pairs.

The same module runs in training and in the engine; only the context differs. ``packed`` holds
whole documents side by side that never see each other; ``paged`` continues sequences whose
earlier keys, values and states live in a ``KVCache``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from weft.nn.backends.base import Backend, Recurrence
from weft.nn.backends.packed import PackedBackend
from weft.nn.backends.paged import PagedBackend, PagedBatch
from weft.nn.kv_cache import KVCache
from weft.nn.rotary import rotary_tables
from weft.spec import AttentionSpec, RotarySpec

__all__ = ["PagedBatch", "StepContext", "document_positions"]


class StepContext:
    """Positions and the backend of one forward pass."""

    def __init__(self, positions_T: Tensor, backend: Backend) -> None:
        self.positions_T = positions_T
        self.backend = backend
        # Layers share their tables: they are computed once per distinct rotary spec and step.
        self._rotary: dict[tuple[RotarySpec, int], tuple[Tensor, Tensor]] = {}

    @classmethod
    def packed(
        cls,
        lengths: Sequence[int],
        *,
        device: torch.device | str | None = None,
        keep_keys: frozenset[int] = frozenset(),
    ) -> StepContext:
        """Return the context of documents of these lengths laid end to end (training).

        ``keep_keys`` are the layers whose keys and values later layers use
        (``ModelSpec.kv_sources``).
        """
        backend = PackedBackend(tuple(lengths), keep_keys)
        return cls(document_positions(lengths, device=device), backend)

    @classmethod
    def paged(cls, cache: KVCache, batch: PagedBatch) -> StepContext:
        """Return the context of an engine step over a paged cache."""
        return cls(batch.positions_T, PagedBackend(cache, batch))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence in this pass; they add up to T."""
        return self.backend.lengths

    def attend(
        self,
        layer: int,
        q_TNH: Tensor,
        k_TKH: Tensor | None,
        v_TKH: Tensor | None,
        spec: AttentionSpec,
    ) -> Tensor:
        """Let each query meet the keys it may see; returns [T, N, H].

        Keys and values are none where ``spec.kv_source`` names the layer that computed them.
        """
        return self.backend.attend(layer, q_TNH, k_TKH, v_TKH, spec)

    def scan(self, layer: int, name: str, recurrence: Recurrence, *inputs_T: Tensor) -> Tensor:
        """Carry the state called ``name`` along each sequence; returns the outputs, [T, ...].

        ``name`` is a key of the layer's ``LayerSpec.states``.
        """
        return self.backend.scan(layer, name, recurrence, inputs_T)

    def rotary(self, spec: RotarySpec, rotary_dim: int) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of this step's positions, each [T, R]."""
        key = (spec, rotary_dim)
        if key not in self._rotary:
            self._rotary[key] = rotary_tables(spec, rotary_dim, self.positions_T)
        return self._rotary[key]


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
