"""Brackets to complete so that the whole parses: "Close the brackets: ([{" -> "}])"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.data.permutation import Permutation, derive_seed
from weft.data.tasks.task import Problem, Split, split_of

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_SYMBOLS = "()[]{}"


@dataclass(frozen=True)
class Brackets:
    """Openings, some of them already closed, that the answer must finish.

    The answer is checked by a parser, not by comparison: whatever makes the whole balanced is
    right (such as opening and closing one more pair).

    Attributes:
        max_length: The difficulty: symbols in the question.
    """

    max_length: int = 6
    name: str = "brackets"

    def __post_init__(self) -> None:
        if not 2 <= self.max_length <= 20:
            raise ConfigError(f"max_length is {self.max_length}", fix="use 2 to 20")

    def problems(self, split: Split, seed: int) -> Iterator[Problem]:
        """Yield every open prefix of up to ``max_length`` symbols once, shuffled by ``seed``."""
        total = sum(6**length for length in range(1, self.max_length + 1))
        for number in Permutation(total, derive_seed(seed, self.name)):
            prefix = _nth_string(number)
            stack = open_brackets(prefix)
            if stack and split_of(f"brackets:{prefix}") == split:
                answer = "".join(_CLOSING[symbol] for symbol in reversed(stack))
                yield Problem(f"Close the brackets: {prefix}", answer, {"prefix": prefix})

    def grade(self, problem: Problem, text: str) -> bool:
        """Accept when question and the answer's first line parse together."""
        first_line = text.strip().split("\n")[0].replace(" ", "")
        return open_brackets(problem.meta["prefix"] + first_line) == []


def open_brackets(text: str) -> list[str] | None:
    """Return what is still open at the end of a text; None if it cannot be completed.

    >>> open_brackets("([]{"), open_brackets("()"), open_brackets("(]"), open_brackets("a")
    (['(', '{'], [], None, None)
    """
    stack: list[str] = []
    for symbol in text:
        if symbol in _CLOSING:
            stack.append(symbol)
        elif not stack or _CLOSING[stack.pop()] != symbol:
            return None
    return stack


def _nth_string(number: int) -> str:
    """Return string ``number`` over the six symbols, shortest first."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, len(_SYMBOLS))
        text = _SYMBOLS[digit] + text
    return text
