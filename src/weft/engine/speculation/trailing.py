"""What drafting networks with a cache of their own share: tokens that wait, and guesses drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from weft.engine.speculation.config import Acceptance
from weft.engine.speculation.drawing import GuessDrawer
from weft.engine.speculation.trails import MAX_WAITING_TOKENS, Trails
from weft.engine.step_view import StepView
from weft.nn.kv_cache import KVCache


class TrailingProposer(ABC):
    """Follows the target a step behind: remembers what it computed, catches up when it drafts.

    Args:
        cache: Of the network; indexed by the scheduler's blocks, scratch blocks behind them.
        acceptance: How guesses are verified, which decides how they are drawn.
        keeps_hidden: The network reads the target's hidden states.
    """

    def __init__(self, cache: KVCache, acceptance: Acceptance, *, keeps_hidden: bool) -> None:
        self._cache = cache
        self.caches: tuple[KVCache, ...] = (cache,)
        self._drawer = GuessDrawer(acceptance)
        self._trails = Trails(keeps_hidden=keeps_hidden)

    def take_in(self, view: StepView) -> None:
        """Remember what the step has computed and drawn."""
        self._drawer.take_in(view)
        self._trails.take_in(view)
        if self._trails.num_tokens > MAX_WAITING_TOKENS:
            self._catch_up([item.id for item in view.items], {})

    def probabilities(self, id: int) -> Tensor | None:
        """Return what the latest guesses of a sequence were drawn from, [guesses, V]."""
        return self._drawer.probabilities(id)

    def confidences(self, id: int) -> Sequence[float]:
        """Return how sure of each guess the network was."""
        return self._drawer.confidences(id)

    def forget(self, ids: Sequence[int]) -> None:
        """Drop sequences that ended."""
        self._trails.forget(ids)
        self._drawer.forget(ids)

    @abstractmethod
    def _catch_up(self, ids: Sequence[int], last: Mapping[int, int]) -> Any:
        """Compute what waits, and what guesses need for sequences by their last tokens."""
