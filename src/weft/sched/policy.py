"""Who is admitted next: policies, chosen by name.

Among those that run, the order is the same for all: the one that came first is served first and
preempted last, so it always advances and ends. A policy chooses among those that wait. What it
chooses is never passed over for another that fits better.

Policies that look at more than arrival may overtake the request that came first; after
`max_overtakes` admissions of others it goes first. All that wait come first one day, so nobody
starves. The bound counts admissions and not seconds so that a schedule depends on no clock.
"priority" has no such bound: it is meant strictly.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

from weft.core.errors import ConfigError
from weft.sched.manager import KVManager
from weft.sched.sequence import Sequence
from weft.sched.waiting import RankedQueue

PolicyName = Literal["priority", "fcfs", "longest_prefix", "shortest_remaining", "fair_share"]

# Prices of Sheng et al.: an output token costs twice as much as an input token.
_INPUT_PRICE, _OUTPUT_PRICE = 1, 2
# Prefixes are looked up for so many of those that came first.
_NUM_LOOKED_UP = 64


class Policy:
    """First come, first served, and the base of the others."""

    name: ClassVar[PolicyName] = "fcfs"

    def __init__(self, max_overtakes: int = 64) -> None:
        self.max_overtakes = max_overtakes
        self._num_overtakes: Counter[int] = Counter()

    def rank(self, sequence: Sequence) -> tuple[int, int, int]:
        """Return its place in the order of service; forks are served in their parents' place."""
        return (0, sequence.family, sequence.id)

    def choose(self, waiting: RankedQueue) -> Sequence:
        """Return whom to admit next, from at least one."""
        first = waiting.first
        if self._num_overtakes[first.id] >= self.max_overtakes:
            return first
        return self._prefer(waiting)

    def enqueued(self, sequence: Sequence, waiting: RankedQueue) -> None:
        """Hear of a new request before it joins those that wait."""

    def admitted(self, sequence: Sequence, waiting: RankedQueue) -> None:
        """Hear of an admission, with those that still wait."""
        self._num_overtakes.pop(sequence.id, None)
        if len(waiting) and waiting.first.rank < sequence.rank:
            self._num_overtakes[waiting.first.id] += 1

    def drew(self, sequence: Sequence, num_tokens: int) -> None:
        """Hear of tokens drawn."""

    def ended(self, sequence: Sequence) -> None:
        """Hear of an ending."""
        self._num_overtakes.pop(sequence.id, None)

    def check(self) -> None:
        """Assert that nobody was overtaken more often than allowed."""
        assert all(0 < num <= self.max_overtakes for num in self._num_overtakes.values())

    def _prefer(self, waiting: RankedQueue) -> Sequence:
        return waiting.first


class Priority(Policy):
    """Strictly by priority, then by arrival."""

    name = "priority"

    def rank(self, sequence: Sequence) -> tuple[int, int, int]:
        """Return its place in the order of service: lower priorities first."""
        return (sequence.request.priority, sequence.family, sequence.id)


class LongestPrefix(Policy):
    """Most tokens in the prefix cache first (Zheng et al. 2023, SGLang, arXiv:2312.07104)."""

    name = "longest_prefix"

    def __init__(self, kv: KVManager, max_overtakes: int) -> None:
        super().__init__(max_overtakes)
        self._kv = kv

    def _prefer(self, waiting: RankedQueue) -> Sequence:
        early = [s for _, s in zip(range(_NUM_LOOKED_UP), waiting, strict=False)]
        return max(early, key=lambda s: (self._kv.num_cached_tokens(s.table, s.tokens), -s.id))


class ShortestRemaining(Policy):
    """Fewest tokens still to be drawn first, as far as `max_tokens` says; then shorter prompts."""

    name = "shortest_remaining"

    def _prefer(self, waiting: RankedQueue) -> Sequence:
        return min(waiting, key=lambda s: (s.max_length - len(s.tokens), len(s.tokens), s.rank))


class FairShare(Policy):
    """The tenant that was served least first (virtual token counter, Sheng et al. 2023).

    Each tenant has a counter of what it got: prompt tokens at admission, output tokens twice as
    they are drawn. A tenant that comes back is lifted to the lowest counter of those that wait, so
    that nobody saves up while idle (Fairness in Serving Large Language Models, arXiv:2401.00588,
    algorithm 2).
    """

    name = "fair_share"

    def __init__(self, max_overtakes: int) -> None:
        super().__init__(max_overtakes)
        self.served: Counter[str] = Counter()
        self._last_to_leave = ""

    def enqueued(self, sequence: Sequence, waiting: RankedQueue) -> None:
        """Lift the counter of a tenant nothing of which waits."""
        tenant = sequence.request.tenant
        tenants = {other.request.tenant for other in waiting}
        if tenant not in tenants:
            others = tenants or {self._last_to_leave}
            floor = min(self.served[other] for other in others)
            self.served[tenant] = max(self.served[tenant], floor)

    def admitted(self, sequence: Sequence, waiting: RankedQueue) -> None:
        """Charge a prompt once, however often it is computed again."""
        super().admitted(sequence, waiting)
        tenant = sequence.request.tenant
        if not sequence.known:
            self.served[tenant] += _INPUT_PRICE * sequence.num_prompt_tokens
        self._last_to_leave = tenant

    def drew(self, sequence: Sequence, num_tokens: int) -> None:
        """Charge tokens drawn."""
        self.served[sequence.request.tenant] += _OUTPUT_PRICE * num_tokens

    def _prefer(self, waiting: RankedQueue) -> Sequence:
        return min(waiting, key=lambda s: (self.served[s.request.tenant], s.rank))


def make_policy(name: str, kv: KVManager, max_overtakes: int) -> Policy:
    """Return a policy by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    match name:
        case "priority":
            return Priority(max_overtakes)
        case "fcfs":
            return Policy(max_overtakes)
        case "longest_prefix":
            return LongestPrefix(kv, max_overtakes)
        case "shortest_remaining":
            return ShortestRemaining(max_overtakes)
        case "fair_share":
            return FairShare(max_overtakes)
    names = "priority, fcfs, longest_prefix, shortest_remaining, fair_share"
    raise ConfigError(f"there is no policy {name!r}", fix=f"use one of {names}")
