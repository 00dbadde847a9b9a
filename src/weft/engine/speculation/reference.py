"""Verification of one sequence in plain Python, as the papers write it.

Distributions are lists of probabilities by token. ``target`` gives that of the token behind a run
of guesses; the token drawn there is the step's last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from weft.sched.plan import Draft

Distribution = Sequence[float]
Target = Callable[[tuple[int, ...]], Distribution]


def verify_same_draw(draft: Draft, draw: Callable[[tuple[int, ...]], int]) -> list[int]:
    """Return what ``draw`` gives token by token, for as long as it was guessed, and one more."""
    tokens: list[int] = []
    guess = -1
    while True:
        tokens.append(draw(tuple(tokens)))
        followers = [g for g in _followers(draft, guess) if draft.tokens[g] == tokens[-1]]
        if not followers:
            return tokens
        guess = followers[0]


def verify_by_rejection(
    draft: Draft, drawn_from: Sequence[Distribution], target: Target, uniforms: Iterator[float]
) -> list[int]:
    """Return the guesses that held and one token more (arXiv:2211.17192, algorithm 1; trees as in
    arXiv:2305.09781, algorithm 2).

    Args:
        draft: A chain or a tree.
        drawn_from: What each guess was drawn from.
        target: The target's distribution behind a run of tokens.
        uniforms: Fresh random numbers in [0, 1).
    """
    tokens: list[int] = []
    guess: int | None = -1
    while guess is not None:
        residual = list(target(tuple(tokens)))
        guess, residual = _try_followers(draft, guess, drawn_from, residual, uniforms)
        tokens.append(_draw(residual, next(uniforms)) if guess is None else draft.tokens[guess])
    return tokens


def _try_followers(
    draft: Draft,
    guess: int,
    drawn_from: Sequence[Distribution],
    residual: list[float],
    uniforms: Iterator[float],
) -> tuple[int | None, list[float]]:
    """Return the first follower that holds, or none and the residual of all."""
    for follower in _followers(draft, guess):
        token, q = draft.tokens[follower], drawn_from[follower]
        if next(uniforms) * q[token] < residual[token]:
            return follower, residual
        left = [max(p - r, 0.0) for p, r in zip(residual, q, strict=True)]
        if sum(left) > 0:
            residual = [value / sum(left) for value in left]
    return None, residual


def _followers(draft: Draft, guess: int) -> list[int]:
    parents = draft.parents or range(-1, len(draft.tokens) - 1)
    return [index for index, parent in enumerate(parents) if parent == guess]


def _draw(distribution: Distribution, uniform: float) -> int:
    cumulative, target = 0.0, uniform * sum(distribution)
    for token, probability in enumerate(distribution):
        cumulative += probability
        if target < cumulative:
            return token
    return max(range(len(distribution)), key=lambda token: distribution[token] > 0)
