"""Cutting guesses where a grammar refuses them: they could not hold, and would cost their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weft.engine.trees import is_chain, parents_of
from weft.sched.plan import Draft


def within_grammar(
    draft: Draft, count_valid: Callable[[Sequence[int]], int], *, keeps_refused: bool
) -> Draft:
    """Return the guesses of a draft that a grammar lets follow one another.

    An end token is refused, too: nothing follows it, so to guess it gains nothing.

    Args:
        draft: A chain or a tree.
        count_valid: Of a run of tokens, how many the grammar takes.
        keeps_refused: Leave a guess that is refused and drop only those behind it. Needed where
            guesses were drawn at random and are judged by rejection: to drop a guess for what was
            drawn would change the distribution of the token that takes its place.
    """
    if is_chain(draft):
        return draft.head(count_valid(draft.tokens) + keeps_refused)
    kept: list[int] = []
    # By guess, the tokens down to it, where the grammar takes them all.
    taken: dict[int, tuple[int, ...]] = {-1: ()}
    for guess, (token, parent) in enumerate(zip(draft.tokens, parents_of(draft), strict=True)):
        if parent not in taken:
            continue
        path = (*taken[parent], token)
        if count_valid(path) == len(path):
            taken[guess] = path
        elif not keeps_refused:
            continue
        kept.append(guess)
    place = {-1: -1} | {guess: rank for rank, guess in enumerate(kept)}
    return Draft(
        tuple(draft.tokens[guess] for guess in kept),
        tuple(place[draft.parents[guess]] for guess in kept),
    )
