"""How the product of a query and a key becomes a weight: one description for both ops.

T queries, S keys, N query heads, R entries of a table by distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ScoreRule:
    """What happens to scores before and in the softmax.

    ``score = cap(scale * q . k) - slope * |distance| + bias[distance]``, where distance is the
    key's position minus the query's; then what may not be seen is left out, and the sink joins
    the softmax. A query is at the position of the key it is aligned with: the last queries meet
    the last keys.

    Attributes:
        scale: Factor on the products.
        window: A query sees this many positions including its own, and without ``causal`` as
            many to the right; none means all.
        num_first: Positions at a sequence's start that a query sees beyond its window, if not
            ahead of it (attention sinks of StreamingLLM, arXiv:2309.17453).
        causal: Queries see no later position.
        softcap: ``cap(x) = softcap * tanh(x / softcap)`` (Gemma 2, arXiv:2408.00118).
        sinks_N: A score per head that takes part in the softmax and has no value (gpt-oss).
        slopes_N: Linear penalty per head (ALiBi, arXiv:2108.12409).
        bias_NR: Trained bias per head and distance; column R // 2 is distance 0, and distances
            beyond the ends take the end's value (T5, arXiv:1910.10683). R is odd.
    """

    scale: float
    window: int | None = None
    causal: bool = True
    softcap: float | None = None
    sinks_N: Tensor | None = None
    slopes_N: Tensor | None = None
    bias_NR: Tensor | None = None
    num_first: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether only scale, window and causality matter: what the C kernels know."""
        extras = (self.softcap, self.sinks_N, self.slopes_N, self.bias_NR)
        return self.causal and not self.num_first and all(extra is None for extra in extras)

    def sees_all(self, num_keys: int) -> bool:
        """Return whether neither causality nor the window hides a key."""
        return not self.causal and (self.window is None or self.window >= num_keys)

    def visible(self, distance: Tensor) -> Tensor:
        """Return which distances may be seen, bool, in their shape; keys are the last axis."""
        mask = distance <= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        if self.window is None:
            return mask
        near = distance.abs() < self.window
        if self.num_first:
            near |= torch.arange(distance.shape[-1], device=distance.device) < self.num_first
        return mask & near

    def bias(self, distance: Tensor) -> Tensor | None:
        """Return what is added to the scores of each distance, [*shape[:-2], N, T, S], or none."""
        total = None
        if self.slopes_N is not None:
            slopes_N11 = self.slopes_N[:, None, None]
            total = -slopes_N11 * distance.abs().unsqueeze(-3)
        if self.bias_NR is not None:
            reach = self.bias_NR.shape[1] // 2
            wide_NR = self.bias_NR.to(torch.promote_types(self.bias_NR.dtype, torch.float32))
            trained = wide_NR[:, distance.clamp(-reach, reach) + reach].movedim(0, -3)
            total = trained if total is None else total + trained
        return total


def distances(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Return key position minus query position for the last queries of a sequence, [T, S]."""
    positions_T = torch.arange(num_queries, device=device) + (num_keys - num_queries)
    return torch.arange(num_keys, device=device) - positions_T.unsqueeze(1)
