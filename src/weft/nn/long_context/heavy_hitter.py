"""Attention to the tokens that each head has attended to most, token by token.

T tokens, B sequences, N query heads, K key-value heads, G = N / K, H head width, M places (the
budget). A place is written over in place, so a step moves no more than it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from weft.nn.backends.paged import PagedBackend
from weft.nn.long_context.policy import HeavyHitter
from weft.ops import ScoreRule


@dataclass(frozen=True)
class HeavyHitterBackend(PagedBackend):
    """The backend of an engine with a ``HeavyHitter``; keys and values are states.

    Attributes:
        policy: How much is kept.
    """

    policy: HeavyHitter

    def attend(
        self,
        layer: int,
        q_TNH: Tensor,
        k_TKH: Tensor | None,
        v_TKV: Tensor | None,
        rule: ScoreRule,
        kv_source: int | None,
    ) -> Tensor:
        """Take in the tokens one after another, each evicting before it attends."""
        assert k_TKH is not None, "keys of another layer are refused"
        assert v_TKV is not None
        stored = self.cache.states[layer]
        out_TNV = torch.empty_like(q_TNH)
        for tokens_B, slots_B in self._turns:
            out_TNV[tokens_B] = self._take_in(
                stored, slots_B, tokens_B, (q_TNH[tokens_B], k_TKH[tokens_B], v_TKV[tokens_B]), rule
            )
        return out_TNV

    @cached_property
    def _turns(self) -> list[tuple[Tensor, Tensor]]:
        """Return which tokens come first, second ... of their sequences, and the states' slots."""
        slots_B = self.batch.state_slots_B
        assert slots_B is not None
        lengths_B = torch.tensor(self.lengths, device=slots_B.device)
        starts_B = lengths_B.cumsum(0) - lengths_B
        turns = []
        for turn in range(max(self.lengths)):
            (rows,) = torch.nonzero(lengths_B > turn, as_tuple=True)
            turns.append((starts_B[rows] + turn, slots_B[rows]))
        return turns

    def _take_in(
        self,
        stored: Mapping[str, Tensor],
        slots_B: Tensor,
        tokens_B: Tensor,
        qkv_B: tuple[Tensor, Tensor, Tensor],
        rule: ScoreRule,
    ) -> Tensor:
        """Store one token of each sequence, attend from it and add up the weights, [B, N, V]."""
        q_BNH, k_BKH, v_BKV = qkv_B
        positions_B = self.batch.positions_T[tokens_B]
        place_BK = choose_places(
            stored["scores"][slots_B], stored["positions"][slots_B], positions_B, self.policy
        )
        heads_K = torch.arange(k_BKH.shape[1], device=slots_B.device)
        where = (slots_B[:, None], heads_K, place_BK)
        stored["keys"][where] = k_BKH.to(stored["keys"].dtype)
        stored["values"][where] = v_BKV.to(stored["values"].dtype)
        stored["scores"][where] = 0.0
        stored["positions"][where] = positions_B[:, None].to(torch.float32).expand(place_BK.shape)
        filled_BM = torch.arange(self.policy.budget, device=slots_B.device) <= positions_B[:, None]
        weights_BKGM = _weights(q_BNH, stored["keys"][slots_B], filled_BM, rule)
        stored["scores"].index_add_(0, slots_B, weights_BKGM.sum(2))
        values_BKMV = stored["values"][slots_B].to(weights_BKGM.dtype)
        return (weights_BKGM @ values_BKMV).flatten(1, 2).to(q_BNH.dtype)


def choose_places(
    scores_BKM: Tensor, positions_BKM: Tensor, positions_B: Tensor, policy: HeavyHitter
) -> Tensor:
    """Return where each head puts the token at a sequence's position, [B, K].

    The next empty place, or that of the smallest score among those not recent; of equals the
    first. Places of a sequence that has fewer tokens than places hold others' leftovers.
    """
    recent_BKM = positions_BKM >= (positions_B - policy.recent)[:, None, None]
    evicted_BK = scores_BKM.masked_fill(recent_BKM, float("inf")).argmin(-1)
    is_filling_B1 = (positions_B < policy.budget)[:, None]
    return torch.where(is_filling_B1, positions_B[:, None], evicted_BK)


def _weights(q_BNH: Tensor, k_BKMH: Tensor, filled_BM: Tensor, rule: ScoreRule) -> Tensor:
    """Return the softmax weights, [B, K, G, M], at least float32."""
    wide = torch.promote_types(q_BNH.dtype, torch.float32)
    groups = (k_BKMH.shape[1], -1)
    q_BKGH = q_BNH.unflatten(1, groups).to(wide)
    scores = q_BKGH @ k_BKMH.to(wide).transpose(2, 3) * rule.scale
    if rule.softcap is not None:
        scores = (scores / rule.softcap).tanh() * rule.softcap
    scores = scores.masked_fill(~filled_BM[:, None, None, :], float("-inf"))
    if rule.sinks_N is None:
        return scores.softmax(-1)
    sinks = (
        rule.sinks_N.to(wide).unflatten(0, groups)[None, :, :, None].expand(*scores.shape[:3], 1)
    )
    return torch.cat((scores, sinks), -1).softmax(-1)[..., :-1]
