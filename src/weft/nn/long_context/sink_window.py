"""Attention to the first tokens and a window, over blocks of which a ring is written over.

T tokens, B sequences, N query heads, K key-value heads, H head width, V value width, S positions
kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from weft.nn.backends.paged import PagedBackend
from weft.nn.long_context.policy import SinkWindow
from weft.nn.rotary import rotary_tables
from weft.ops import PagedLayout, ScoreRule, apply_rotary, paged_attention
from weft.ops.scaled_rows import Rows
from weft.spec import AttentionSpec

SOFTMAX_SPAN = 64  # WEFT_SPAN of softmax.h


@dataclass(frozen=True)
class SinkWindowBackend(PagedBackend):
    """The backend of an engine with a ``SinkWindow``.

    Attributes:
        policy: What is kept.
    """

    policy: SinkWindow

    def attend(
        self,
        layer: int,
        q_TNH: Tensor,
        k_TKH: Tensor | None,
        v_TKV: Tensor | None,
        rule: ScoreRule,
        kv_source: int | None,
    ) -> Tensor:
        """Write the new keys and values, then attend to what is kept."""
        source = layer if kv_source is None else kv_source
        if k_TKH is not None and v_TKV is not None:
            self.cache.write(source, {"keys": k_TKH, "values": v_TKV}, self.batch.slots_T)
        stored = self.cache.read(source)
        if rule.window is not None:  # no wider than the policy's: this layer sees no sinks
            return paged_attention(q_TNH, stored["keys"], stored["values"], self.kept, rule)
        rule = replace(rule, window=self.policy.window, num_first=self.policy.num_sinks)
        if self.policy.positions == "absolute":
            return paged_attention(q_TNH, stored["keys"], stored["values"], self.kept, rule)
        mixer = self.cache.spec.layers[layer].mixer
        assert isinstance(mixer, AttentionSpec)
        return self._attend_near(q_TNH, stored["keys"], stored["values"], rule, mixer)

    @cached_property
    def kept(self) -> PagedLayout:
        """The step's layout without most positions that no token of it sees.

        What is left out lies between the sinks and the oldest window, so distances within the
        window are as before.
        """
        return keep_sinks_and_window(self.batch.layout, self.policy)

    def _attend_near(
        self, q_TNH: Tensor, k_SKH: Rows, v_SKV: Rows, rule: ScoreRule, mixer: AttentionSpec
    ) -> Tensor:
        """Attend with distances counted among what is kept.

        Rotary scores depend on distance alone, and distances within the window are true. A sink
        is met by a query turned back by as many positions as lie evicted between them. One
        product computes both: queries have two halves, and of a key's two halves one is zero.
        """
        layout, (index_S, table_BS) = self.kept, self._dense_slots
        near_TNH = self._turned_back(q_TNH, mixer)
        is_sink_S11 = self._is_sink_S[:, None, None]
        keys_SKH = k_SKH[index_S].to(q_TNH.dtype)
        keys_SK2H = torch.cat((keys_SKH * ~is_sink_S11, keys_SKH * is_sink_S11), dim=-1)
        values_SKV = v_SKV[index_S].to(q_TNH.dtype)
        dense = replace(layout, slots_BS=table_BS)
        return paged_attention(
            torch.cat((q_TNH, near_TNH), dim=-1), keys_SK2H, values_SKV, dense, rule
        )

    def _turned_back(self, q_TNH: Tensor, mixer: AttentionSpec) -> Tensor:
        if mixer.rotary is None:
            return q_TNH
        last = self.policy.num_kept - 1
        back_T = -(self.batch.positions_T - last).clamp_min(0)
        tables = rotary_tables(mixer.rotary, mixer.rotary_dim, back_T)
        return apply_rotary(q_TNH, *tables, mixer.rotary.layout)

    @cached_property
    def _dense_slots(self) -> tuple[Tensor, Tensor]:
        """Return the slots that are read, row by row, and the layout's table of places in them."""
        slots_BS = self.kept.slots_BS
        places = torch.arange(slots_BS.numel(), device=slots_BS.device)
        return slots_BS.flatten(), places.view_as(slots_BS)

    @cached_property
    def _is_sink_S(self) -> Tensor:
        num_rows, width = self.kept.slots_BS.shape
        places_S = torch.arange(width, device=self.kept.slots_BS.device)
        return (places_S < self.policy.num_sinks).repeat(num_rows)


def keep_sinks_and_window(layout: PagedLayout, policy: SinkWindow) -> PagedLayout:
    """Leave out positions between the sinks and what the first query of a step sees.

    As many as are left out leave every other one's place within the C kernel's blocks of softmax as
    it was, so that a token has the same bits in any chunk. A few more than are seen remain; the
    window hides them.
    """
    sizes = list(zip(layout.query_lengths, layout.context_lengths, strict=True))
    evicted = [
        max(context - queries - policy.window + 1 - policy.num_sinks, 0)
        // SOFTMAX_SPAN
        * SOFTMAX_SPAN
        for queries, context in sizes
    ]
    if not any(evicted):
        return layout
    contexts = tuple(n - gone for n, gone in zip(layout.context_lengths, evicted, strict=True))
    device = layout.slots_BS.device
    places_S = torch.arange(max(contexts), device=device)
    evicted_B1 = torch.tensor(evicted, device=device).unsqueeze(1)
    places_BS = places_S + evicted_B1 * (places_S >= policy.num_sinks)
    lengths_B1 = torch.tensor(layout.context_lengths, device=device).unsqueeze(1)
    # Padding names a sequence's own slot.
    slots_BS = layout.slots_BS.gather(1, places_BS.minimum(lengths_B1 - 1))
    return replace(layout, context_lengths=contexts, slots_BS=slots_BS)
