"""One request of a workload."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

from weft.core.errors import ConfigError
from weft.spec import Request, SamplingParams

# Tokens of different origin never meet in the prefix cache: the highest bits say where one is from.
SHARED, OWN, DRAWN, HASHED = 0, 1 << 60, 2 << 60, 3 << 60


def made_up_token(origin: int, owner: int, position: int) -> int:
    """Return the token of a position of some content; equal content has equal tokens."""
    return origin | owner << 30 | position


@dataclass(frozen=True)
class Arrival:
    """One request of a workload.

    Attributes:
        time_s: When it arrives, from the start of the simulation.
        num_prompt_tokens: Length of its prompt.
        num_output_tokens: Tokens it generates, unless the context ends before.
        num_shared_tokens: So many prompt tokens are those of every request of its group, such as
            a system prompt.
        group: Which shared beginning it has.
    """

    time_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    num_shared_tokens: int = 0
    group: int = 0

    def __post_init__(self) -> None:
        lengths = (self.num_prompt_tokens, self.num_output_tokens)
        if min(lengths) < 1 or not 0.0 <= self.time_s < math.inf:
            raise ConfigError(
                f"{self} cannot arrive", fix="give a time >= 0, a prompt and at least one new token"
            )
        if not 0 <= self.num_shared_tokens <= self.num_prompt_tokens:
            raise ConfigError(
                f"{self.num_shared_tokens} of {self.num_prompt_tokens} prompt tokens are shared",
                fix="share at most the whole prompt",
            )

    def request(self, index: int) -> Request:
        """Return the request number ``index`` with made-up tokens."""
        return Request(
            id=str(index),
            tokens=self.prompt(index),
            sampling=SamplingParams(max_tokens=self.num_output_tokens, ignore_eos=True, seed=0),
            arrival_s=self.time_s,
        )

    def prompt(self, index: int) -> tuple[int, ...]:
        """Return the prompt's tokens: the group's beginning, then its own."""
        shared, own = made_up_token(SHARED, self.group, 0), made_up_token(OWN, index, 0)
        return (
            *range(shared, shared + self.num_shared_tokens),
            *range(own + self.num_shared_tokens, own + self.num_prompt_tokens),
        )


@dataclass(frozen=True)
class TraceArrival(Arrival):
    """A recorded request that names the content of its prompt in blocks.

    Attributes:
        block_hashes: Name of each block of the prompt; equal names mean equal content so far.
        hash_block_size: Tokens per block; the last block may be shorter.
    """

    block_hashes: tuple[int, ...] = ()
    hash_block_size: int = 512

    def prompt(self, index: int) -> tuple[int, ...]:
        """Return the blocks' tokens, and the request's own where the names end."""
        named = (
            token
            for name in self.block_hashes
            for token in _block(made_up_token(HASHED, name, 0), self.hash_block_size)
        )
        tokens = tuple(islice(named, self.num_prompt_tokens))
        own = made_up_token(OWN, index, 0)
        return (*tokens, *range(own + len(tokens), own + self.num_prompt_tokens))


def _block(first: int, size: int) -> range:
    return range(first, first + size)
