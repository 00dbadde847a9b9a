"""What a ``StepContext`` asks of its backend.

T tokens, N query heads, K key-value heads, H key width, V value width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from weft.nn.latent.tokens import LatentTokens
from weft.ops import ScoreRule
from weft.spec import MLASpec


class Recurrence(Protocol):
    """A function that carries a state along sequences laid end to end.

    A mixer passes one to ``ctx.scan``. It knows nothing of caches: the backend brings the states
    the sequences start with and keeps the ones they end with.
    """

    def __call__(
        self, inputs_T: Sequence[Tensor], lengths: tuple[int, ...], initial_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs, [T, ...], and each sequence's final state, [B, *state].

        Args:
            inputs_T: Tensors whose first axis is the T tokens of all sequences.
            lengths: Tokens of each of the B sequences; they add up to T.
            initial_B: State each sequence starts with, [B, *state]; none means zeros.
        """
        ...


class Backend(Protocol):
    """Where keys, values and states live and how queries meet them."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence in this pass."""
        ...

    def attend(
        self,
        layer: int,
        q_TNH: Tensor,
        k_TKH: Tensor | None,
        v_TKV: Tensor | None,
        rule: ScoreRule,
        kv_source: int | None,
    ) -> Tensor:
        """Return the attended values, [T, N, V]."""
        ...

    def attend_latent(self, layer: int, tokens: LatentTokens, spec: MLASpec) -> Tensor:
        """Return the attended values of latent attention, [T, N, value width]."""
        ...

    def scan(
        self, layer: int, name: str, recurrence: Recurrence, inputs_T: Sequence[Tensor]
    ) -> Tensor:
        """Run a recurrence from each sequence's state called ``name``; returns [T, ...]."""
        ...
