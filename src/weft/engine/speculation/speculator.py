"""``Speculator``: what the runner asks for guesses; a proposer, counted and switched."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from weft.engine.draw import Draw, draw_same
from weft.engine.speculation.config import Acceptance, SwitchConfig
from weft.engine.speculation.control import Switch
from weft.engine.speculation.counters import Counters, SpeculationStats
from weft.engine.speculation.lengths import verify_lengths
from weft.engine.speculation.proposer import Proposer
from weft.engine.speculation.verify import RejectionDraw
from weft.engine.speculation.within_grammar import within_grammar
from weft.engine.step_view import StepView
from weft.nn.kv_cache import KVCache
from weft.sched.budget import StepTime
from weft.sched.loop import Clock
from weft.sched.plan import Draft


class Speculator:
    """A proposer as the runner sees it.

    Args:
        proposer: Makes the guesses.
        acceptance: How they are judged.
        switch: When to stop; none never does.
        clock: The engine's.
        step_time: What a step takes; none verifies all guesses.
    """

    def __init__(
        self,
        proposer: Proposer,
        *,
        acceptance: Acceptance,
        switch: SwitchConfig | None,
        clock: Clock,
        step_time: StepTime | None = None,
    ) -> None:
        self.proposer = proposer
        self._step_time = step_time
        self._acceptance = acceptance
        self._switch = Switch(switch, clock)
        self._counters = Counters()

    @property
    def caches(self) -> Sequence[KVCache]:
        """Caches of the drafting network, indexed by the target's blocks."""
        return self.proposer.caches

    @property
    def draw(self) -> Draw:
        """How tokens are drawn where guesses follow."""
        if self._acceptance == "same_draw":
            return draw_same
        return RejectionDraw(self.proposer.probabilities)

    def propose(self, view: StepView) -> dict[int, Draft]:
        """Take in a step; return guesses by sequence while drafting pays."""
        self._counters.count(view.walks.values())
        self.proposer.take_in(view)
        if not self._switch.step(view):
            return {}
        drafts = self._allowed(self.proposer.propose(view), view)
        return drafts if self._step_time is None else self._cut(drafts, view, self._step_time)

    def _allowed(self, drafts: dict[int, Draft], view: StepView) -> dict[int, Draft]:
        """Drop guesses that the grammars of their sequences refuse."""
        grammars = view.grammars
        if grammars is None or not len(grammars):
            return drafts
        allowed = {}
        for id, draft in drafts.items():
            if id in grammars:
                count_valid = functools.partial(grammars.count_valid, id)
                drawn = self._acceptance == "rejection" and self._is_random(id)
                draft = within_grammar(draft, count_valid, keeps_refused=drawn)
            if draft.tokens:
                allowed[id] = draft
        return allowed

    def _is_random(self, id: int) -> bool:
        return self.proposer.probabilities(id) is not None

    def _cut(
        self, drafts: dict[int, Draft], view: StepView, step_time: StepTime
    ) -> dict[int, Draft]:
        """Keep the guesses that are worth their rows in the next step."""
        known = {id: sure for id in drafts if (sure := self.proposer.confidences(id))}
        num_context_tokens = sum(item.start + item.num_tokens for item in view.items)
        num_others = len(view.items) - len(known)

        def steps_per_s(num_rows: int) -> float:
            return 1.0 / step_time.step_s(num_rows + num_others, num_context_tokens)

        lengths = verify_lengths(list(known.values()), steps_per_s)
        for id, length in zip(known, lengths, strict=True):
            drafts[id] = drafts[id].head(length)
        return {id: draft for id, draft in drafts.items() if draft.tokens}

    def forget(self, ids: Sequence[int]) -> None:
        """Drop sequences that ended."""
        self.proposer.forget(ids)

    def stats(self) -> SpeculationStats:
        """Return the counters now."""
        counters = self._counters
        return SpeculationStats(
            num_drafts=counters.num_drafts,
            num_draft_tokens=counters.num_draft_tokens,
            num_accepted_tokens=counters.num_accepted_tokens,
            num_accepted_by_position=tuple(counters.num_accepted_by_position),
            drafting=self._switch.drafting,
            speedup=self._switch.speedup,
        )
