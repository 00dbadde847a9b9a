"""Offline evaluations: generated problems, and multiple choice from the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from weft.core.errors import ConfigError, did_you_mean
from weft.data.permutation import derive_seed
from weft.data.tasks.catalog import TASKS, open_task
from weft.data.tasks.docstrings import Docstrings
from weft.data.tasks.task import sample
from weft.evals.choice import ChoiceItem
from weft.evals.task import ChoiceTask, EvalTask, GenerationTask

DOCSTRING_CHOICE = "docstring_choice"
NUM_CHOICES = 4
# Enough for the longest answer of each generated task.
MAX_TOKENS = 32


def task_names() -> list[str]:
    """Return the names ``open_eval`` knows."""
    return sorted([*TASKS, DOCSTRING_CHOICE])


def open_eval(
    name: str, *, num_items: int = 250, seed: int = 42, difficulty: int | None = None
) -> EvalTask:
    """Return a built-in evaluation; items come from the test side of the split.

    The same arguments give the same items on every machine with the same Python (the standard
    library is where docstring_choice takes its questions from).

    Raises:
        ConfigError: an unknown name. DataError: fewer items than asked for.
    """
    if name == DOCSTRING_CHOICE:
        return docstring_choice(num_items=num_items, seed=seed)
    if name not in TASKS:
        raise ConfigError(f"there is no evaluation {name!r}", fix=did_you_mean(name, task_names()))
    task = open_task(name, difficulty=difficulty)
    problems = sample(task, "test", count=num_items, seed=seed)
    return GenerationTask(name, tuple(problems), task.grade, MAX_TOKENS)


def docstring_choice(*, num_items: int, seed: int) -> ChoiceTask:
    """Return cloze items: a definition of the standard library and four docstrings, one its own.

    The wrong docstrings belong to other objects of the same kind, so style alone decides nothing.

    Raises:
        DataError: the library has fewer test objects.
    """
    problems = sample(Docstrings(), "test", count=num_items + 2 * NUM_CHOICES, seed=seed)
    generator = np.random.default_rng(derive_seed(seed, DOCSTRING_CHOICE) % 2**63)
    items = []
    for problem in problems[:num_items]:
        others = sorted(
            {
                other.answer
                for other in problems
                if other.meta["kind"] == problem.meta["kind"] and other.answer != problem.answer
            }
        )
        if len(others) < NUM_CHOICES - 1:
            others = sorted({other.answer for other in problems} - {problem.answer})
        wrong = [others[i] for i in generator.permutation(len(others))[: NUM_CHOICES - 1]]
        answer = int(generator.integers(NUM_CHOICES))
        choices = [*wrong[:answer], problem.answer, *wrong[answer:]]
        items.append(ChoiceItem(_header(problem.meta), tuple(choices), answer))
    return ChoiceTask(DOCSTRING_CHOICE, tuple(items))


def _header(meta: Mapping[str, Any]) -> str:
    """Return the source line before a docstring, as a code model has read it."""
    name = meta["object"].rsplit(".", 1)[-1]
    if meta["kind"] == "function":
        return f'def {name}(*args):\n    """'
    if meta["kind"] == "class":
        return f'class {name}:\n    """'
    return f'# {meta["object"]}\n"""'
