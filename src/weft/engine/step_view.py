"""``StepView``: what a step has computed, for whoever guesses what comes next.

T tokens of the step, guesses included, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from weft.engine.draw import Walk
from weft.engine.grammar.rows import GrammarRows
from weft.nn.context import PagedBatch
from weft.sched.plan import NewSequence, StepItem


@dataclass(frozen=True)
class StepView:
    """One step, after its tokens were drawn.

    Attributes:
        items: What was computed, in the order of T; ``PENDING`` tokens are filled in.
        new: Sequences that came with this step; their prompts.
        preempted: Sequences that gave way in this step and start again later.
        paged: Positions and slots of the step's tokens.
        hidden_TD: Hidden states of all tokens, each item's followed by those of its draft.
        walks: By sequence, what it has drawn and which guesses held.
        grammars: Those of the sequences, behind what was drawn; none where there is no table.
    """

    items: tuple[StepItem, ...]
    new: tuple[NewSequence, ...]
    preempted: tuple[int, ...]
    paged: PagedBatch
    hidden_TD: Tensor
    walks: Mapping[int, Walk]
    grammars: GrammarRows | None = None

    @cached_property
    def first_rows(self) -> dict[int, int]:
        """By sequence, where its item begins in T."""
        rows, row = {}, 0
        for item in self.items:
            rows[item.id] = row
            row += item.num_tokens
        return rows

    def drawn(self, id: int) -> tuple[int, ...]:
        """Return the tokens a sequence has drawn in this step; none where it drew none."""
        walk = self.walks.get(id)
        return () if walk is None else tuple(sampled.token for sampled in walk.drawn)

    def kept_rows(self, item: StepItem) -> list[int]:
        """Return where in T the tokens lie that stay: the item's own and the guesses that held."""
        first = self.first_rows[item.id]
        end = first + len(item.tokens)
        walk = self.walks.get(item.id)
        return [*range(first, end), *(end + guess for guess in ([] if walk is None else walk.held))]
