"""What the scheduler knows about one request."""

from __future__ import annotations

import enum
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field

from weft.sched.manager import BlockTable
from weft.sched.plan import Draft, NewSequence
from weft.spec.request import FinishReason, Request


class Phase(enum.Enum):
    """Where a request is between `submit` and its end; held is a fork that waits for its parent."""

    HELD = enum.auto()
    WAITING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


@dataclass(eq=False, slots=True)
class Sequence:
    """One request on its way: its tokens, how many are computed, and where.

    Attributes:
        id: Its name in plans.
        request: What was asked.
        seed: The request's, or the one drawn for it.
        stop_token_ids: Every token that ends it.
        max_length: It ends with LENGTH when it has this many tokens.
        tokens: Prompt, then output.
        num_computed: Tokens whose keys and values are in the cache.
        num_planned: The same once the steps in flight have ended; where its next item starts.
        num_pending: Items in flight that draw; each gives at least one token.
        num_in_flight: Items that are planned and not settled.
        num_stale: How many of these were planned before it gave its blocks back. Their tokens
            count, their keys and values are lost.
        is_proven: A step of it was settled since it got its blocks; what it began with is there.
        awaits_settle: Where its next item starts is not known before its last one is settled.
        draft: Guesses at what follows `tokens`, for its next item.
        num_cached: Prompt tokens found in the prefix cache when it was first admitted.
        phase: Held, waiting, running or finished.
        known: The runner has seen it.
        table: Its blocks.
        parent: Whose computed tokens it begins with, until it has begun.
        family: Id of the first of those it was forked from, or its own.
        rank: Order of service, as the policy says; lowest first, preempted last-first.
    """

    id: int
    request: Request
    seed: int
    stop_token_ids: tuple[int, ...]
    max_length: int
    tokens: list[int]
    table: BlockTable
    num_computed: int = 0
    num_planned: int = 0
    num_pending: int = 0
    num_in_flight: int = 0
    num_stale: int = 0
    is_proven: bool = False
    awaits_settle: bool = False
    draft: Draft | None = None
    num_cached: int = 0
    phase: Phase = Phase.WAITING
    known: bool = False
    parent: Sequence | None = None
    family: int = field(init=False)
    rank: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        # Ids count submissions, so families are in order of their first arrival.
        self.family = self.id if self.parent is None else self.parent.family
        self.rank = (0, self.family, self.id)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.tokens)

    @property
    def may_reuse(self) -> bool:
        """Whether a cached prefix helps: not while every prompt token has to be scored."""
        scored = len(self.tokens) > self.num_prompt_tokens
        return self.request.sampling.prompt_logprobs is None or scored

    def introduction(self) -> NewSequence:
        """Return what the runner must know before the first step."""
        return NewSequence(
            id=self.id,
            request_id=self.request.id,
            prompt=self.request.tokens,
            sampling=self.request.sampling,
            sequence=self.request.sequence,
            seed=self.seed,
            stop_token_ids=self.stop_token_ids,
            adapter=self.request.adapter,
        )

    def finish_reason(self) -> FinishReason | None:
        """Say whether the token just appended ends the sequence."""
        if self.tokens[-1] in self.stop_token_ids:
            num_output_tokens = len(self.tokens) - len(self.request.tokens)
            if num_output_tokens > self.request.sampling.min_tokens:
                return FinishReason.STOP
        return FinishReason.LENGTH if len(self.tokens) >= self.max_length else None


def ending_tokens(request: Request, eos_ids: Ids[int]) -> tuple[int, ...]:
    """Return the tokens that end `request`, without repetitions."""
    own = () if request.sampling.ignore_eos else eos_ids
    return tuple(dict.fromkeys((*own, *request.sampling.stop_token_ids)))
