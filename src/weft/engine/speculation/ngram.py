"""Prompt lookup: guess what followed the same few tokens before (Saxena 2023; Yang et al. 2023,
arXiv:2304.04487).

The index maps every n-gram to where it ended last, so a token costs ``max_lookup`` dictionary
entries and a guess as many look-ups, however long the text is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from weft.engine.speculation.config import NgramConfig
from weft.engine.speculation.proposer import HistoryProposer
from weft.engine.step_view import StepView
from weft.sched.plan import Draft


class NgramIndex:
    """The tokens of one sequence, and where each n-gram ended before its latest occurrence.

    >>> index = NgramIndex([1, 2, 3, 9, 1, 2], NgramConfig())
    >>> index.guess(3)
    (3, 9, 1)
    """

    def __init__(self, tokens: Iterable[int], config: NgramConfig) -> None:
        self.tokens: list[int] = []
        self._lengths = range(config.min_lookup, config.max_lookup + 1)
        # An n-gram is entered when a token follows it, so the current suffix finds another place.
        self._ends: dict[tuple[int, ...], int] = {}
        self.extend(tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Append tokens."""
        for token in tokens:
            end = len(self.tokens)
            for length in self._lengths:
                if length > end:
                    break
                self._ends[tuple(self.tokens[end - length :])] = end
            self.tokens.append(token)

    def guess(self, num_tokens: int) -> tuple[int, ...]:
        """Return what followed the longest suffix that occurred before; nothing if none did.

        Where the copy runs into the present it goes on with what it has copied, so that a text of
        a short period is continued for as long as asked.
        """
        for length in reversed(self._lengths):
            start = self._ends.get(tuple(self.tokens[-length:]))
            if start is not None:
                period = len(self.tokens) - start
                return tuple(self.tokens[start + i % period] for i in range(num_tokens))
        return ()


class NgramProposer(HistoryProposer):
    """Looks up the last tokens of each sequence in its own text.

    Args:
        config: Which suffixes are looked for.
        max_draft: Guesses per step.
    """

    def __init__(self, config: NgramConfig, max_draft: int) -> None:
        self._config = config
        self._max_draft = max_draft
        self._indices: dict[int, NgramIndex] = {}

    def take_in(self, view: StepView) -> None:
        """Append what was drawn."""
        for new in view.new:
            self._indices[new.id] = NgramIndex(new.prompt, self._config)
        for id, index in self._indices.items():
            index.extend(view.drawn(id))

    def propose(self, view: StepView) -> dict[int, Draft]:
        """Guess for every sequence whose suffix occurred before."""
        drafts = {}
        for id in view.walks:
            index = self._indices.get(id)
            tokens = () if index is None else index.guess(self._max_draft)
            if tokens:
                drafts[id] = Draft(tokens)
        return drafts

    def forget(self, ids: Sequence[int]) -> None:
        """Drop sequences that ended."""
        for id in ids:
            self._indices.pop(id, None)
