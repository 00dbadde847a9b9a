"""``Proposer``: what every way to guess implements.

What the runner asks for (``weft.engine.runner.StepProposer``) is met by ``Speculator``, which
counts and switches the one below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from weft.engine.step_view import StepView
from weft.nn.kv_cache import KVCache
from weft.sched.plan import Draft

# By sequence, the distributions its latest guesses were drawn from, [guesses, V]; none where they
# were not drawn at random, so that each has probability one.
Probabilities = Callable[[int], Tensor | None]


class Proposer(Protocol):
    """Guesses at what follows the tokens of a step."""

    @property
    def caches(self) -> Sequence[KVCache]:
        """Caches of its own that are indexed by the same blocks as the target's."""
        ...

    def take_in(self, view: StepView) -> None:
        """Learn what a step has computed and drawn; called for every step, in order."""
        ...

    def propose(self, view: StepView) -> dict[int, Draft]:
        """Return guesses by sequence, for those that have drawn in this step.

        Called behind ``take_in`` of the same step, and not at all while drafting does not pay.
        """
        ...

    def probabilities(self, id: int) -> Tensor | None:
        """Return what the latest guesses of a sequence were drawn from; see ``Probabilities``."""
        ...

    def confidences(self, id: int) -> Sequence[float]:
        """Return for each of the latest guesses how sure of it the network was, given those before.

        Empty where that is not known, or where guesses are a tree.
        """
        ...

    def forget(self, ids: Sequence[int]) -> None:
        """Drop sequences that ended."""
        ...


class HistoryProposer:
    """Common part of proposers that look at tokens only: no caches, nothing drawn at random."""

    caches: tuple[KVCache, ...] = ()

    def probabilities(self, id: int) -> Tensor | None:
        """Return none: every guess is certain."""
        return None

    def confidences(self, id: int) -> tuple[float, ...]:
        """Return nothing: it is not known."""
        return ()
