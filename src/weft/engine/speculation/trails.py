"""``Trail``: the tokens of one sequence that a drafting network has still to compute.

A network with a cache must compute every token that stays, or its guesses see holes. What a step
has computed joins the trail of its sequence; drafting computes trails and cuts them. While drafting
is off they grow, so that it can resume where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from weft.engine.step_view import StepView
from weft.sched.plan import StepItem

# Tokens that may wait to be computed while drafting is off.
MAX_WAITING_TOKENS = 4096


@dataclass
class Trail:
    """A run of tokens.

    Attributes:
        start: Position of the first.
        tokens: Their ids.
        hidden: The target's hidden states of them, in pieces of one step.
        blocks: The sequence's latest block table.
    """

    start: int
    tokens: list[int] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    blocks: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """Position behind the last token."""
        return self.start + len(self.tokens)

    def hidden_TD(self) -> Tensor:
        """Return the hidden states as one tensor."""
        if len(self.hidden) > 1:
            self.hidden = [torch.cat(self.hidden)]
        return self.hidden[0]

    def keep_last(self, num_tokens: int) -> None:
        """Drop all but the last tokens."""
        num_dropped = max(len(self.tokens) - num_tokens, 0)
        self.start += num_dropped
        del self.tokens[:num_dropped]
        if self.hidden:
            self.hidden = [self.hidden_TD()[num_dropped:]] if self.tokens else []


class Trails:
    """The trails of all live sequences.

    Args:
        keeps_hidden: Whether the network reads the target's hidden states.
    """

    def __init__(self, *, keeps_hidden: bool) -> None:
        self._keeps_hidden = keeps_hidden
        self._trails: dict[int, Trail] = {}

    def __getitem__(self, id: int) -> Trail:
        return self._trails[id]

    @property
    def num_tokens(self) -> int:
        """Tokens of all trails."""
        return sum(len(trail.tokens) for trail in self._trails.values())

    def take_in(self, view: StepView) -> None:
        """Append what a step has computed and kept."""
        self.forget(view.preempted)
        for item in view.items:
            trail = self._trails.get(item.id)
            # What a cached prefix or a preemption has left out is not computed by anyone: a hole.
            if trail is None or trail.end != item.start:
                trail = self._trails[item.id] = Trail(item.start)
            trail.tokens += (*item.tokens, *view.drawn(item.id)[:-1])
            trail.blocks = item.blocks
            if self._keeps_hidden:
                trail.hidden.append(view.hidden_TD[view.kept_rows(item)])

    def forget(self, ids: Sequence[int]) -> None:
        """Drop sequences."""
        for id in ids:
            self._trails.pop(id, None)


def known_item(id: int, trail: Trail, tokens: tuple[int, ...], extra: tuple[int, ...]) -> StepItem:
    """Return the item that computes ``tokens`` from the start of a trail.

    ``extra`` are blocks for positions that the sequence has none for.
    """
    return StepItem(id, tokens, trail.start, (*trail.blocks, *extra), sample=True)
