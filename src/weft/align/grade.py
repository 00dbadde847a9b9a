"""Verdicts on answers: correct, wrong, or unscorable.

An answer that cannot be judged is not a wrong one. Rewarding it 0 would teach the policy that
whatever broke the grader was its own fault, so unscorable samples leave their group and are
counted.
"""

from __future__ import annotations

import enum
from typing import Protocol

from weft.data.tasks.task import Problem, Task
from weft.spec.request import FinishReason


class Grade(enum.StrEnum):
    """What a grader says of one answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNSCORABLE = "unscorable"

    @property
    def reward(self) -> float | None:
        """1, 0, or none."""
        return {Grade.CORRECT: 1.0, Grade.WRONG: 0.0, Grade.UNSCORABLE: None}[self]


class Grader(Protocol):
    """Judges a finished answer."""

    def grade(self, problem: Problem, text: str, finish_reason: FinishReason) -> Grade:
        """Return the verdict; an answer cut off by ``max_tokens`` is judged as it stands."""
        ...


class TaskGrader:
    """Judges by the task's own check; an answer the engine did not finish is unscorable."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def grade(self, problem: Problem, text: str, finish_reason: FinishReason) -> Grade:
        """Return the verdict of ``Task.grade``."""
        if finish_reason not in (FinishReason.STOP, FinishReason.LENGTH):
            return Grade.UNSCORABLE
        return Grade.CORRECT if self.task.grade(problem, text) else Grade.WRONG
