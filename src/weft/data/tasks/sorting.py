"""Digits to sort: "Sort: 5 3 9" -> "3 5 9"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.data.permutation import Permutation, derive_seed
from weft.data.tasks.task import Problem, Split, split_of


@dataclass(frozen=True)
class Sorting:
    """Rows of ``length`` digits; rows of the same digits are on the same side of the split.

    Attributes:
        length: The difficulty.
    """

    length: int = 4
    name: str = "sorting"

    def __post_init__(self) -> None:
        if not 2 <= self.length <= 18:
            raise ConfigError(f"length is {self.length}", fix="use 2 to 18")

    def problems(self, split: Split, seed: int) -> Iterator[Problem]:
        """Yield every row of the split once, shuffled by ``seed``."""
        for number in Permutation(10**self.length, derive_seed(seed, self.name)):
            digits = f"{number:0{self.length}d}"
            ordered = "".join(sorted(digits))
            if split_of(f"sorting:{ordered}") == split:
                yield Problem(f"Sort: {' '.join(digits)}", " ".join(ordered), {"digits": digits})

    def grade(self, problem: Problem, text: str) -> bool:
        """Accept when the digits of the answer's first line are the sorted ones."""
        found = re.findall(r"[0-9]+", text.strip().split("\n")[0])
        return found == problem.answer.split()
