"""Tasks by name."""

from __future__ import annotations

from collections.abc import Callable

from weft.core.errors import ConfigError, did_you_mean
from weft.data.tasks.addition import Addition
from weft.data.tasks.brackets import Brackets
from weft.data.tasks.docstrings import Docstrings
from weft.data.tasks.sorting import Sorting
from weft.data.tasks.task import Task

TASKS: dict[str, Callable[[int | None], Task]] = {
    "addition": lambda level: Addition() if level is None else Addition(level),
    "brackets": lambda level: Brackets() if level is None else Brackets(level),
    "sorting": lambda level: Sorting() if level is None else Sorting(level),
    "docstrings": lambda level: Docstrings(),
}


def open_task(name: str, *, difficulty: int | None = None) -> Task:
    """Return a task; ``difficulty`` is its largest operand, length or number of items.

    Raises:
        ConfigError: an unknown name, or a difficulty the task does not have.
    """
    if name not in TASKS:
        raise ConfigError(f"there is no task {name!r}", fix=did_you_mean(name, TASKS))
    if name == "docstrings" and difficulty is not None:
        raise ConfigError("the task docstrings has no difficulty", fix="leave it out")
    return TASKS[name](difficulty)
