"""What the shape of a draft says: which guess follows which, and what each of them sees.

Guess -1 stands for the item's last token, which all of them follow. B rows, S places.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from weft.sched.plan import Draft


def parents_of(draft: Draft) -> tuple[int, ...]:
    """Return for each guess the one it follows.

    >>> parents_of(Draft((7, 8, 9)))
    (-1, 0, 1)
    """
    return draft.parents or tuple(range(-1, len(draft.tokens) - 1))


def is_chain(draft: Draft) -> bool:
    """Return whether each guess follows the one before it."""
    return all(parent == index - 1 for index, parent in enumerate(draft.parents))


def paths_of(draft: Draft) -> list[tuple[int, ...]]:
    """Return for each guess those it follows, from the first, itself last.

    >>> paths_of(Draft((7, 8, 9), (-1, -1, 1)))
    [(0,), (1,), (1, 2)]
    """
    paths: list[tuple[int, ...]] = []
    for guess, parent in enumerate(parents_of(draft)):
        paths.append((guess,) if parent < 0 else (*paths[parent], guess))
    return paths


def unroll(
    trees: Mapping[int, Draft],
    lengths_B: NDArray[np.int64],
    contexts_B: NDArray[np.int64],
    slots_BS: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give each guess of a tree a row of its own, which reads the slots of its branch only.

    To attention a guess is then the last token of an ordinary sequence: no mask is needed, places
    are positions again, and it is computed just as it would be without a tree.

    Args:
        trees: By row, what follows its known tokens.
        lengths_B: Tokens of each row, guesses included.
        contexts_B: Places of each row, guesses included.
        slots_BS: The slot of each place.

    Returns:
        The same three with the rows of guesses behind those of their items.
    """
    lengths, contexts, tables = [], [], []
    for row, slots_S in enumerate(slots_BS):
        paths = paths_of(trees[row]) if row in trees else []
        first = int(contexts_B[row]) - len(paths)
        lengths += [int(lengths_B[row]) - len(paths), *(1 for _ in paths)]
        contexts += [first, *(first + len(path) for path in paths)]
        known_S = np.where(np.arange(len(slots_S)) < first, slots_S, slots_S[0])
        tables.append(known_S)
        for path in paths:
            tables.append(known_S.copy())
            tables[-1][first : first + len(path)] = slots_S[first + np.array(path)]
    return np.array(lengths), np.array(contexts), np.stack(tables)


def followers_of(draft: Draft) -> dict[tuple[int, int], int]:
    """Return the guess at (the guess before it, its token); of equal ones the first."""
    followers: dict[tuple[int, int], int] = {}
    for guess, key in enumerate(zip(parents_of(draft), draft.tokens, strict=True)):
        followers.setdefault(key, guess)
    return followers
