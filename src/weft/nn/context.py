"""``StepContext``: what one forward pass knows about its tokens.

T tokens, N query heads, K key-value heads, H key width, V value width,
R rotary pairs, A position axes.

The same module runs in training and in the engine; only the context differs. ``packed`` holds
whole documents side by side that never see each other; ``paged`` continues sequences whose
earlier keys, values and states live in a ``KVCache``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from weft.nn.backends.base import Backend, Recurrence
from weft.nn.backends.choice import paged_backend
from weft.nn.backends.packed import PackedBackend
from weft.nn.backends.paged import PagedBatch
from weft.nn.kv_cache import KVCache
from weft.nn.latent.tokens import LatentTokens
from weft.nn.memory import Memory
from weft.nn.moe.record import RoutingRecord
from weft.nn.rotary import rotary_tables
from weft.ops import ScoreRule
from weft.spec import MLASpec, RotarySpec

__all__ = ["PagedBatch", "StepContext", "document_positions"]


class StepContext:
    """Positions and the backend of one forward pass.

    Attributes:
        memory: What an encoder read, for layers with cross attention.
        relative_bias_NR: The stack's trained bias by distance, set by the stack that has one.
        axis_positions_AT: Places of the tokens on several axes for rotary specs with sections
            (M-RoPE); set by the caller, none where the axes coincide.
        tokens_T: The token ids, set by the stack that embeds them (hash routing reads them).
        routing: What each mixture of experts decided, by layer.
        given_experts: Experts each token must use, [T, K] by layer (routing replay); set by the
            caller, empty where routers choose.
    """

    def __init__(
        self, positions_T: Tensor, backend: Backend, *, memory: Memory | None = None
    ) -> None:
        self.positions_T = positions_T
        self.backend = backend
        self.memory = memory
        self.relative_bias_NR: Tensor | None = None
        self.axis_positions_AT: Tensor | None = None
        self.tokens_T: Tensor | None = None
        self.routing: dict[int, RoutingRecord] = {}
        self.given_experts: Mapping[int, Tensor] = {}
        # Layers share their tables: they are computed once per distinct rotary spec and step.
        self._rotary: dict[tuple[RotarySpec, int], tuple[Tensor, Tensor]] = {}

    @classmethod
    def packed(
        cls,
        lengths: Sequence[int],
        *,
        device: torch.device | str | None = None,
        keep_keys: frozenset[int] = frozenset(),
        memory: Memory | None = None,
    ) -> StepContext:
        """Return the context of documents of these lengths laid end to end (training).

        ``keep_keys`` are the layers whose keys and values later layers use
        (``ModelSpec.kv_sources``).
        """
        backend = PackedBackend(tuple(lengths), keep_keys)
        return cls(document_positions(lengths, device=device), backend, memory=memory)

    @classmethod
    def paged(
        cls, cache: KVCache, batch: PagedBatch, *, memory: Memory | None = None
    ) -> StepContext:
        """Return the context of an engine step over a paged cache."""
        return cls(batch.positions_T, paged_backend(cache, batch), memory=memory)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence in this pass; they add up to T."""
        return self.backend.lengths

    def attend(
        self,
        layer: int,
        q_TNH: Tensor,
        k_TKH: Tensor | None,
        v_TKV: Tensor | None,
        rule: ScoreRule,
        *,
        kv_source: int | None = None,
    ) -> Tensor:
        """Let each query meet the keys it may see; returns [T, N, V].

        Keys and values are none where ``kv_source`` names the layer that computed them.
        """
        return self.backend.attend(layer, q_TNH, k_TKH, v_TKV, rule, kv_source)

    def attend_latent(self, layer: int, tokens: LatentTokens, spec: MLASpec) -> Tensor:
        """Let each query meet the latents it may see; returns [T, N, value width]."""
        return self.backend.attend_latent(layer, tokens, spec)

    def scan(self, layer: int, name: str, recurrence: Recurrence, *inputs_T: Tensor) -> Tensor:
        """Carry the state called ``name`` along each sequence; returns the outputs, [T, ...].

        ``name`` is a key of the layer's ``LayerSpec.states``.
        """
        return self.backend.scan(layer, name, recurrence, inputs_T)

    def rotary(self, spec: RotarySpec, rotary_dim: int) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of this step's positions, each [T, R]."""
        key = (spec, rotary_dim)
        if key not in self._rotary:
            axes = None if spec.sections is None else self.axis_positions_AT
            positions = self.positions_T if axes is None else axes
            self._rotary[key] = rotary_tables(spec, rotary_dim, positions)
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
