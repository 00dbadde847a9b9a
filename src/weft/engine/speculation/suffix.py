"""Suffix decoding (Oliaro et al. 2024, arXiv:2411.04975).

Of all suffixes of a sequence that occurred before, in itself or in past answers, the most promising
one is continued: nodes are added best first by their estimated probability, the product of the
shares with which each token followed, until ``factor`` times the length of the match is reached.
The sum of the probabilities is the number of guesses expected to hold; the largest sum wins.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from weft.engine.speculation.config import SuffixConfig, TreeShape
from weft.engine.speculation.proposer import HistoryProposer
from weft.engine.speculation.suffix_trie import END, Cursor, SuffixTrie
from weft.engine.step_view import StepView
from weft.sched.plan import Draft

# Suffixes whose continuation is worked out, of each trie; shorter ones say less.
_NUM_TRIED = 4


@dataclass
class _History:
    """What is known of one sequence.

    Attributes:
        own: Its prompt and output.
        output: Its output.
        past: Where its suffixes are among past answers, longest first.
    """

    own: SuffixTrie
    output: list[int] = field(default_factory=list)
    past: list[Cursor] = field(default_factory=list)


class SuffixProposer(HistoryProposer):
    """Continues repeated suffixes.

    Args:
        config: What is remembered and trusted.
        max_draft: Most guesses per step.
        tree: Shape of the draft.
    """

    def __init__(self, config: SuffixConfig, max_draft: int, tree: TreeShape) -> None:
        self._config = config
        self._max_draft = max_draft
        self._tree = tree
        self._histories: dict[int, _History] = {}
        self._past = SuffixTrie(config.max_depth)

    def take_in(self, view: StepView) -> None:
        """Append what was drawn."""
        for new in view.new:
            history = self._histories[new.id] = _History(SuffixTrie(self._config.max_depth))
            self._extend(history, new.prompt)
        for id, history in self._histories.items():
            drawn = view.drawn(id)
            history.output += drawn
            self._extend(history, drawn)

    def _extend(self, history: _History, tokens: Sequence[int]) -> None:
        for token in tokens:
            history.own.append(token)
        if self._past.text:
            # A suffix of more tokens than the trie is deep is none of its.
            for token in tokens[-self._config.max_depth :]:
                history.past = self._past.advance(history.past, token)

    def propose(self, view: StepView) -> dict[int, Draft]:
        """Continue the most promising suffix of every sequence that has one."""
        drafts = {}
        for id in view.walks:
            history = self._histories.get(id)
            draft = None if history is None else self._best(history)
            if draft is not None:
                drafts[id] = draft
        return drafts

    def _best(self, history: _History) -> Draft | None:
        past = [(len(history.past) - i, cursor) for i, cursor in enumerate(history.past)]
        tried = [(history.own, match) for match in history.own.repeated()[:_NUM_TRIED]]
        tried += [(self._past, match) for match in past[:_NUM_TRIED]]
        best, best_score = None, 0.0
        for trie, (length, cursor) in tried:
            num_guesses = min(self._max_draft, max(1, int(self._config.factor * length)))
            draft, score = continue_suffix(
                trie, cursor, num_guesses, self._tree, self._config.min_probability
            )
            if score > best_score:
                best, best_score = draft, score
        return best

    def forget(self, ids: Sequence[int]) -> None:
        """Drop sequences that ended; their outputs are remembered."""
        for id in ids:
            history = self._histories.pop(id, None)
            if history is not None and history.output and self._config.max_past_tokens:
                self._remember(history.output)

    def _remember(self, output: Sequence[int]) -> None:
        limit = self._config.max_past_tokens
        if self._past.text and len(self._past.text) + len(output) > limit:
            self._past = _latest_half(self._past, self._config.max_depth, limit)
            for history in self._histories.values():
                history.past = []
        self._past.add_document(output[-limit:])


def continue_suffix(
    trie: SuffixTrie, cursor: Cursor, num_guesses: int, tree: TreeShape, min_probability: float
) -> tuple[Draft, float]:
    """Return the likeliest continuations, best first, and how many are expected to hold."""
    tokens: list[int] = []
    parents: list[int] = []
    score = 0.0
    order = 0
    # (minus probability, order of arrival, token, parent, depth, where it leads)
    open_nodes: list[tuple[float, int, int, int, int, Cursor]] = []

    def expand(at: Cursor, parent: int, probability: float, depth: int) -> None:
        nonlocal order
        followers = sorted(trie.followers(at), key=lambda follower: -follower[1])
        for token, share, behind in followers[: tree.branching]:
            if probability * share >= min_probability:
                entry = (-probability * share, order, token, parent, depth, behind)
                heapq.heappush(open_nodes, entry)
                order += 1

    expand(cursor, -1, 1.0, 1)
    while open_nodes and len(tokens) < num_guesses:
        negative, _, token, parent, depth, behind = heapq.heappop(open_nodes)
        tokens.append(token)
        parents.append(parent)
        score -= negative
        if tree.depth is None or depth < tree.depth:
            expand(behind, len(tokens) - 1, -negative, depth + 1)
    return Draft(tuple(tokens), tuple(parents) if tree.branching > 1 else ()), score


def _latest_half(trie: SuffixTrie, max_depth: int, limit: int) -> SuffixTrie:
    """Return a trie of the latest documents, at most half of the limit."""
    kept = SuffixTrie(max_depth)
    text = trie.text[-(limit // 2) :]
    if len(text) < len(trie.text):
        # The last token is an end, so there is one.
        text = text[text.index(END) + 1 :]
    document: list[int] = []
    for token in text:
        if token == END:
            kept.add_document(document)
            document = []
        else:
            document.append(token)
    return kept
