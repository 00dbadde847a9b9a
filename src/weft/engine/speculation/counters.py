"""What speculation did, in the counters vLLM has; ``weft.plan.speculation`` says what to expect."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from weft.engine.draw import Walk


@dataclass(frozen=True)
class SpeculationStats:
    """One look at a speculator.

    Attributes:
        num_drafts: Sequences and steps with guesses.
        num_draft_tokens: Guesses that were verified.
        num_accepted_tokens: Guesses that held.
        num_accepted_by_position: The same by how many tokens ahead, nearest first.
        drafting: Whether drafting is switched on now.
        speedup: Measured tokens per second with drafting over that without; none where one of
            them was not measured yet.
    """

    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_accepted_by_position: tuple[int, ...] = ()
    drafting: bool = True
    speedup: float | None = None

    @property
    def acceptance_rate(self) -> float:
        """Share of the guesses that held; 0 before the first."""
        return self.num_accepted_tokens / max(self.num_draft_tokens, 1)

    @property
    def acceptance_by_position(self) -> tuple[float, ...]:
        """By how many tokens ahead, the share of all drafts whose guess there held."""
        return tuple(num / max(self.num_drafts, 1) for num in self.num_accepted_by_position)

    @property
    def tokens_per_draft(self) -> float:
        """Mean tokens of a step with guesses: those that held and one more."""
        return 1.0 + self.num_accepted_tokens / max(self.num_drafts, 1)


@dataclass
class Counters:
    """Running totals; see ``SpeculationStats``."""

    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_accepted_by_position: list[int] = field(default_factory=list)

    def count(self, walks: Iterable[Walk]) -> None:
        """Count the walks of one step."""
        for walk in walks:
            if walk.draft is None:
                continue
            num_held = len(walk.held)
            self.num_drafts += 1
            self.num_draft_tokens += len(walk.draft.tokens)
            self.num_accepted_tokens += num_held
            missing = num_held - len(self.num_accepted_by_position)
            self.num_accepted_by_position += [0] * max(missing, 0)
            for position in range(num_held):
                self.num_accepted_by_position[position] += 1
