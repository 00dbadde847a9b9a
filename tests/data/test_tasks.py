from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError, DataError
from weft.data.tasks.addition import Addition, first_integer
from weft.data.tasks.brackets import Brackets, open_brackets
from weft.data.tasks.catalog import TASKS, open_task
from weft.data.tasks.docstrings import Docstrings, first_sentence
from weft.data.tasks.sorting import Sorting
from weft.data.tasks.task import Problem, Task, cycle, demonstration, prompt, sample

SMALL: list[Task] = [Addition(20), Brackets(4), Sorting(3)]


@pytest.mark.parametrize("task", SMALL, ids=lambda task: task.name)
def test_splits_are_disjoint_and_cover_everything_once(task: Task) -> None:
    train = [problem.question for problem in task.problems("train", 1)]
    test = [problem.question for problem in task.problems("test", 1)]
    assert len(set(train)) == len(train)
    assert set(train).isdisjoint(test)
    assert 0.1 < len(test) / (len(train) + len(test)) < 0.3
    again = [problem.question for problem in task.problems("train", 2)]
    assert again != train
    assert set(again) == set(train)


@pytest.mark.parametrize("task", SMALL, ids=lambda task: task.name)
def test_own_answers_are_right_and_others_answers_are_not(task: Task) -> None:
    problems = list(itertools.islice(task.problems("train", 0), 200))
    assert all(task.grade(problem, problem.answer) for problem in problems)
    assert all(task.grade(problem, f" {problem.answer}\nmore") for problem in problems)
    assert not any(task.grade(problem, "") for problem in problems)
    for one, other in itertools.pairwise(problems):
        if one.answer != other.answer:
            assert not task.grade(one, other.answer)


def test_sample_of_250_with_seed_42_never_changes() -> None:
    problems = sample(Addition(), "test", count=250, seed=42)
    assert problems == sample(Addition(), "test", count=250, seed=42)
    assert len({problem.question for problem in problems}) == 250
    assert [problem.question for problem in problems[:3]] == [
        "What is 90 + 9?",
        "What is 67 + 35?",
        "What is 73 + 93?",
    ]


def test_sum_and_its_mirror_are_on_the_same_side() -> None:
    test = {(p.meta["a"], p.meta["b"]) for p in Addition().problems("test", 0)}
    assert all((b, a) in test for a, b in test)


def test_addition_reads_like_a_question() -> None:
    problem = next(p for p in Addition().problems("train", 0))
    a, b = problem.meta["a"], problem.meta["b"]
    assert problem == Problem(f"What is {a} + {b}?", str(a + b), {"a": a, "b": b})
    assert demonstration(problem) == [
        {"role": "user", "content": problem.question},
        {"role": "assistant", "content": problem.answer},
    ]
    assert prompt(problem) == demonstration(problem)[:1]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("42", True),
        ("The sum is 42.", True),
        ("042", True),
        ("42 or 43", True),
        ("43, no 42", False),
        ("-42", False),
        ("4 2", False),
        ("forty-two", False),
        ("9" * 5000, False),
    ],
)
def test_addition_grades_the_first_integer(text: str, right: bool) -> None:
    assert Addition().grade(Problem("What is 17 + 25?", "42"), text) is right


@given(st.integers(-(10**12), 10**12), st.text(alphabet="abc .,\n", max_size=10))
def test_first_integer_is_found_in_any_text(number: int, text: str) -> None:
    assert first_integer(f"{text}{number}{text}") == number


@given(st.text(alphabet="()[]{}", max_size=12))
def test_brackets_parse_agrees_with_rewriting(text: str) -> None:
    rewritten = text
    while (shorter := rewritten.replace("()", "").replace("[]", "").replace("{}", "")) != rewritten:
        rewritten = shorter
    stack = open_brackets(text)
    if set(rewritten) & set(")]}"):
        assert stack is None
    else:
        assert stack == list(rewritten)


def test_brackets_accept_any_completion_that_parses() -> None:
    problem = Problem("Close the brackets: ([", "])", {"prefix": "(["})
    task = Brackets()
    assert task.grade(problem, "])")
    assert task.grade(problem, "() ] {} )")
    assert not task.grade(problem, ")]")
    assert not task.grade(problem, "])()x")


def test_sorting_wants_exactly_the_sorted_digits() -> None:
    problem = Problem("Sort: 3 1 2", "1 2 3", {"digits": "312"})
    assert Sorting(3).grade(problem, "1, 2, 3")
    assert not Sorting(3).grade(problem, "123")
    assert not Sorting(3).grade(problem, "1 2 3 3")


def test_docstrings_answer_with_the_first_sentence() -> None:
    task = Docstrings()
    problems = {
        problem.meta["object"]: problem
        for split in ("train", "test")
        for problem in task.problems(split, 0)
    }
    assert len(problems) > 2000
    join = problems["os.path.join"]
    assert join.question == "What does os.path.join do?"
    assert join.answer == "Join two or more pathname components, inserting '/' as needed."
    assert problems["str.lower"].answer.startswith("Return a copy of the string")
    assert task.grade(join, join.answer.upper())
    assert not task.grade(join, "Join.")
    assert not [name for name in problems if "._" in name]
    train = {problem.question for problem in task.problems("train", 0)}
    assert train.isdisjoint(problem.question for problem in task.problems("test", 0))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        ("See e.g. Foo. Bar.", "See e.g. Foo."),
        ("No end", "No end"),
        ("A v1.2 thing.\n\nB.", "A v1.2 thing."),
        ("Wrapped\nline. Next.", "Wrapped line."),
    ],
)
def test_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


def test_tasks_open_by_name_and_difficulty() -> None:
    assert {open_task(name).name for name in TASKS} == set(TASKS)
    assert open_task("addition", difficulty=9) == Addition(max_operand=9)
    assert open_task("sorting", difficulty=5) == Sorting(length=5)
    with pytest.raises(ConfigError, match="'adition'") as error:
        open_task("adition")
    assert error.value.fix == "did you mean 'addition'?"
    with pytest.raises(ConfigError, match="no difficulty"):
        open_task("docstrings", difficulty=3)
    for name, difficulty in (("addition", 3), ("brackets", 1), ("sorting", 1)):
        with pytest.raises(ConfigError, match=f"is {difficulty}"):
            open_task(name, difficulty=difficulty)


def test_asking_for_more_problems_than_there_are_is_an_error() -> None:
    with pytest.raises(DataError, match="fewer than 250"):
        sample(Addition(9), "test", count=250)


def test_cycle_goes_on_for_ever_in_new_orders() -> None:
    count = len(list(Sorting(2).problems("train", 7)))
    drawn = list(itertools.islice(cycle(Sorting(2), "train", 7), 2 * count))
    assert drawn[:count] == list(Sorting(2).problems("train", 7))
    assert drawn[:count] != drawn[count:]
    assert sorted(p.question for p in drawn[:count]) == sorted(p.question for p in drawn[count:])
