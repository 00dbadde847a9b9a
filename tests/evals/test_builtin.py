from __future__ import annotations

import pytest

from weft.core.errors import ConfigError
from weft.data.tasks.addition import Addition
from weft.evals.builtin import open_eval, task_names
from weft.evals.task import ChoiceTask, GenerationTask


def test_addition_asks_only_the_test_side():
    task = open_eval("addition", num_items=50)
    assert isinstance(task, GenerationTask)
    train = {p.question for p in Addition().problems("train", 0)}
    assert not train & {p.question for p in task.problems}
    assert all(task.grade(p, f"It is {p.answer}.") for p in task.problems)


def test_items_and_hash_follow_from_the_seed():
    first, again, other = (open_eval("addition", num_items=20, seed=s) for s in (1, 1, 2))
    assert first.sha256 == again.sha256 != other.sha256


def test_docstring_choice_offers_four_different_docstrings_with_the_answer_anywhere():
    task = open_eval("docstring_choice", num_items=40)
    assert isinstance(task, ChoiceTask)
    assert len(task.items) == 40
    assert all(len(set(item.choices)) == 4 for item in task.items)
    assert {item.answer for item in task.items} == {0, 1, 2, 3}
    assert task.sha256 == open_eval("docstring_choice", num_items=40).sha256


def test_contexts_end_where_a_docstring_begins():
    task = open_eval("docstring_choice", num_items=5)
    assert isinstance(task, ChoiceTask)
    assert all(item.context.endswith('"""') for item in task.items)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="addition"):
        open_eval("adition")
    assert "docstring_choice" in task_names()
