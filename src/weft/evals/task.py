"""An evaluation as data: which items, judged how, and the hash that names them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from weft.data.tasks.task import Problem
from weft.evals.choice import ChoiceItem


@dataclass(frozen=True)
class GenerationTask:
    """Problems answered by greedy generation.

    Attributes:
        name: As the report calls it.
        problems: What is asked.
        grade: Whether an answer is right.
        max_tokens: Most tokens of an answer.
    """

    name: str
    problems: tuple[Problem, ...]
    grade: Callable[[Problem, str], bool]
    max_tokens: int = 32
    kind: Literal["generation"] = "generation"

    @property
    def sha256(self) -> str:
        """Names the items: equal hashes, equal questions and answers."""
        rows = [(problem.question, problem.answer) for problem in self.problems]
        return hash_items(rows, max_tokens=self.max_tokens)


@dataclass(frozen=True)
class ChoiceTask:
    """Items answered by the likeliest continuation.

    Attributes:
        name: As the report calls it.
        items: What is asked.
    """

    name: str
    items: tuple[ChoiceItem, ...]
    kind: Literal["choice"] = "choice"

    @property
    def sha256(self) -> str:
        """Names the items: equal hashes, equal questions and answers."""
        return hash_items([(item.context, item.choices, item.answer) for item in self.items])


EvalTask = GenerationTask | ChoiceTask


def hash_items(rows: Sequence[Any], **settings: Any) -> str:
    """Return the SHA-256 of rows and settings as canonical JSON."""
    content: Mapping[str, Any] = {"rows": rows, **settings}
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
