"""Additions: "What is 17 + 25?" -> "42"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.data.permutation import Permutation, derive_seed
from weft.data.tasks.task import Problem, Split, split_of


@dataclass(frozen=True)
class Addition:
    """Sums of two numbers from 0 to ``max_operand``.

    ``a + b`` and ``b + a`` are on the same side of the split, so that a test sum was never seen
    in either order.

    Attributes:
        max_operand: The difficulty: 9 gives 100 problems, 99 gives 10 thousand.
    """

    max_operand: int = 99
    name: str = "addition"

    def __post_init__(self) -> None:
        if not 4 <= self.max_operand < 10**9:
            raise ConfigError(
                f"max_operand is {self.max_operand}", fix="use 4 to 999999999, such as 99"
            )

    def problems(self, split: Split, seed: int) -> Iterator[Problem]:
        """Yield every pair of the split once, shuffled by ``seed`` in constant memory."""
        side = self.max_operand + 1
        for code in Permutation(side * side, derive_seed(seed, self.name)):
            a, b = divmod(code, side)
            if split_of(f"addition:{min(a, b)}+{max(a, b)}") == split:
                yield Problem(f"What is {a} + {b}?", str(a + b), {"a": a, "b": b})

    def grade(self, problem: Problem, text: str) -> bool:
        """Accept when the first whole number of the answer is the sum."""
        number = first_integer(text)
        return number is not None and number == int(problem.answer)


def first_integer(text: str) -> int | None:
    """Return the first whole number in a text.

    >>> first_integer("It is 42, not 43."), first_integer("-7"), first_integer("none")
    (42, -7, None)
    """
    match = re.search(r"-?[0-9]+", text)
    # Python refuses to convert longer runs of digits; no problem has such an answer.
    return int(match.group()) if match and len(match.group()) <= 1000 else None
