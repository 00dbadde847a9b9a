"""One engine step: sequences continue from what a ``KVCache`` holds of them.

T tokens, B sequences, N query heads, K key-value heads, H key width, V value width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from weft.nn.backends.base import Recurrence
from weft.nn.kv_cache import KVCache
from weft.nn.latent.paged import attend_paged
from weft.nn.latent.tokens import LatentTokens
from weft.ops import PagedLayout, ScoreRule, paged_attention
from weft.spec import MLASpec


@dataclass(frozen=True)
class PagedBatch:
    """One engine step as tensors.

    Attributes:
        positions_T: Position of each token in its sequence.
        slots_T: Where each token's key and value are written.
        layout: Which slots each sequence attends to.
        state_slots_B: Where each sequence's recurrent states live; none where the model has none.
    """

    positions_T: Tensor
    slots_T: Tensor
    layout: PagedLayout
    state_slots_B: Tensor | None = None

    @cached_property
    def continues_B(self) -> Tensor:
        """Whether each sequence has computed tokens before this step, bool."""
        layout = self.layout
        pairs = zip(layout.query_lengths, layout.context_lengths, strict=True)
        flags = [context > queries for queries, context in pairs]
        return torch.tensor(flags, device=self.positions_T.device)


@dataclass(frozen=True)
class PagedBackend:
    """The backend of the engine.

    Attributes:
        cache: Keys, values and states of all sequences.
        batch: Which of them take part in this step.
    """

    cache: KVCache
    batch: PagedBatch

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens each sequence computes in this step."""
        return self.batch.layout.query_lengths

    def attend(
        self,
        layer: int,
        q_TNH: Tensor,
        k_TKH: Tensor | None,
        v_TKV: Tensor | None,
        rule: ScoreRule,
        kv_source: int | None,
    ) -> Tensor:
        """Write the new keys and values, then attend to the whole context.

        A token sees its own key and value as they are stored, quantized or not: whether others
        were computed in the same step or long before makes no difference.
        """
        source = layer if kv_source is None else kv_source
        if k_TKH is not None and v_TKV is not None:
            self.cache.write(source, {"keys": k_TKH, "values": v_TKV}, self.batch.slots_T)
        stored = self.cache.read(source)
        return paged_attention(q_TNH, stored["keys"], stored["values"], self.batch.layout, rule)

    def attend_latent(self, layer: int, tokens: LatentTokens, spec: MLASpec) -> Tensor:
        """Write the new latents, then attend to the whole context."""
        self.cache.write(layer, tokens.cached, self.batch.slots_T)
        return attend_paged(tokens, self.cache.read(layer), self.batch.layout, spec)

    def scan(
        self, layer: int, name: str, recurrence: Recurrence, inputs_T: Sequence[Tensor]
    ) -> Tensor:
        """Continue from the stored states; sequences that begin in this step start from zero."""
        slots_B = self.batch.state_slots_B
        assert slots_B is not None, "a model with states needs state slots"
        stored = self.cache.states[layer][name]
        initial_B = stored.index_select(0, slots_B)
        initial_B[~self.batch.continues_B] = 0
        outputs_T, final_B = recurrence(inputs_T, self.lengths, initial_B)
        stored.index_copy_(0, slots_B, final_B.to(stored.dtype))
        return outputs_T
