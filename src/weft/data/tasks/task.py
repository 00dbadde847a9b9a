"""The common shape of generated tasks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from weft.core.errors import DataError
from weft.data.instruct import Message
from weft.data.permutation import hash_fraction

Split = Literal["train", "test"]

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Problem:
    """A question, one right answer and the data that made it."""

    question: str
    answer: str
    meta: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A source of problems with a judge."""

    @property
    def name(self) -> str: ...

    def problems(self, split: Split, seed: int) -> Iterator[Problem]:
        """Yield the problems of a split without repetition, in an order set by ``seed``."""
        ...

    def grade(self, problem: Problem, text: str) -> bool:
        """Return whether a model's answer is right."""
        ...


def split_of(key: str) -> Split:
    """Return the side a problem is on, for ever: the hash of its key decides."""
    return "test" if hash_fraction(key) < TEST_SHARE else "train"


def sample(task: Task, split: Split, *, count: int, seed: int = 42) -> list[Problem]:
    """Return ``count`` different problems, the same for the same seed on every machine.

    Raises:
        DataError: the split has fewer problems.
    """
    problems = list(itertools.islice(task.problems(split, seed), count))
    if len(problems) < count:
        raise DataError(
            f"task {task.name} has {len(problems)} problems in {split}, fewer than {count}",
            fix="ask for fewer, or raise the task's difficulty to get more",
        )
    return problems


def cycle(task: Task, split: Split, seed: int) -> Iterator[Problem]:
    """Yield problems without end; every round has another order."""
    return itertools.chain.from_iterable(
        task.problems(split, seed + round_) for round_ in itertools.count()
    )


def demonstration(problem: Problem) -> list[Message]:
    """Return the problem and its answer as a conversation to learn from."""
    return [*prompt(problem), {"role": "assistant", "content": problem.answer}]


def prompt(problem: Problem) -> list[Message]:
    """Return the messages that ask the question."""
    return [{"role": "user", "content": problem.question}]
