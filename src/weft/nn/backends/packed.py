"""Documents laid end to end that never see each other; nothing outlives the pass.

T tokens, N query heads, K key-value heads, H key width, V value width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from weft.nn.backends.base import Recurrence
from weft.nn.latent.packed import attend_packed
from weft.nn.latent.tokens import LatentTokens
from weft.ops import ScoreRule, packed_attention
from weft.spec import MLASpec


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
        v_TKV: Tensor | None,
        rule: ScoreRule,
        kv_source: int | None,
    ) -> Tensor:
        """Attend within each document."""
        if kv_source is not None:
            k_TKH, v_TKV = self._kept[kv_source]
        assert k_TKH is not None
        assert v_TKV is not None
        # Asked in this order so that compiled code does not depend on the layer's index.
        if self.keep and layer in self.keep:
            self._kept[layer] = (k_TKH, v_TKV)
        return packed_attention(q_TNH, k_TKH, v_TKV, self.lengths, rule)

    def attend_latent(self, layer: int, tokens: LatentTokens, spec: MLASpec) -> Tensor:
        """Attend within each document."""
        return attend_packed(tokens, self.lengths, spec)

    def scan(
        self, layer: int, name: str, recurrence: Recurrence, inputs_T: Sequence[Tensor]
    ) -> Tensor:
        """Start every document from a zero state."""
        outputs_T, _ = recurrence(inputs_T, self.lengths, None)
        return outputs_T
