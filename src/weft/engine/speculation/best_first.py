"""The likeliest nodes of a tree of guesses, in order: any leading part is the best of its size."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from weft.sched.plan import Draft


class Candidate(NamedTuple):
    """A node of a tree that is being grown.

    Attributes:
        token: What is guessed.
        parent: Index of the candidate it follows, -1 for the root.
        logprob: Of all guesses down to it.
        depth: From 1.
    """

    token: int
    parent: int
    logprob: float
    depth: int


def likeliest(candidates: Sequence[Candidate], num_guesses: int) -> Draft:
    """Return the likeliest candidates, most likely first.

    A candidate is never likelier than the one it follows, so parents are among them and come first.
    """
    order = sorted(
        range(len(candidates)), key=lambda i: (-candidates[i].logprob, candidates[i].depth)
    )[:num_guesses]
    place = {-1: -1} | {index: rank for rank, index in enumerate(order)}
    return Draft(
        tuple(candidates[index].token for index in order),
        tuple(place[candidates[index].parent] for index in order),
    )


def likeliest_product(levels: Sequence[Sequence[tuple[int, float]]], num_guesses: int) -> Draft:
    """Return the likeliest nodes where the guesses of each depth do not depend on one another.

    Args:
        levels: By depth (token, log-probability) of its candidates, most likely first.
        num_guesses: How many nodes.
    """
    tokens: list[int] = []
    parents: list[int] = []
    # (minus log-probability, order of arrival, depth, rank, parent, log-probability of the parent)
    heap: list[tuple[float, int, int, int, int, float]] = []
    num_pushed = 0

    def push(depth: int, rank: int, parent: int, before: float) -> None:
        nonlocal num_pushed
        if depth < len(levels) and rank < len(levels[depth]):
            logprob = before + levels[depth][rank][1]
            heapq.heappush(heap, (-logprob, num_pushed, depth, rank, parent, before))
            num_pushed += 1

    push(0, 0, -1, 0.0)
    while heap and len(tokens) < num_guesses:
        negative, _, depth, rank, parent, before = heapq.heappop(heap)
        tokens.append(levels[depth][rank][0])
        parents.append(parent)
        push(depth + 1, 0, len(tokens) - 1, -negative)
        push(depth, rank + 1, parent, before)
    return Draft(tuple(tokens), tuple(parents))
