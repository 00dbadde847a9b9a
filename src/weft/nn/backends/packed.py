"""Documents laid end to end that never see each other; nothing outlives the pass.

T tokens, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from weft.nn.backends.base import Recurrence
from weft.ops import packed_attention
from weft.spec import AttentionSpec


@dataclass
class PackedBackend:
    """The backend of training.

    Attributes:
        lengths: Tokens of each document.
        keep: Layers whose keys and values later layers will ask for.
    """

    lengths: tuple[int, ...]
    keep: frozenset[int] = frozenset()
    _kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def attend(
        self,
        layer: int,
        q_TNH: Tensor,
        k_TKH: Tensor | None,
        v_TKH: Tensor | None,
        spec: AttentionSpec,
    ) -> Tensor:
        """Attend within each document."""
        if spec.kv_source is not None:
            k_TKH, v_TKH = self._kept[spec.kv_source]
        assert k_TKH is not None
        assert v_TKH is not None
        if layer in self.keep:
            self._kept[layer] = (k_TKH, v_TKH)
        return packed_attention(
            q_TNH, k_TKH, v_TKH, self.lengths, scale=spec.softmax_scale, window=spec.window
        )

    def scan(
        self, layer: int, name: str, recurrence: Recurrence, inputs_T: Sequence[Tensor]
    ) -> Tensor:
        """Start every document from a zero state."""
        outputs_T, _ = recurrence(inputs_T, self.lengths, None)
        return outputs_T
