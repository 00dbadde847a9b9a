from __future__ import annotations

import pytest

from weft.align.grade import Grade, TaskGrader
from weft.data.tasks.addition import Addition
from weft.data.tasks.task import Problem
from weft.spec.request import FinishReason

PROBLEM = Problem("What is 2 + 2?", "4")


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("4", FinishReason.STOP, Grade.CORRECT),
        ("5", FinishReason.STOP, Grade.WRONG),
        ("", FinishReason.LENGTH, Grade.WRONG),
        ("4", FinishReason.ERROR, Grade.UNSCORABLE),
        ("4", FinishReason.ABORT, Grade.UNSCORABLE),
    ],
)
def test_verdict(text, reason, expected):
    assert TaskGrader(Addition()).grade(PROBLEM, text, reason) is expected


def test_unscorable_has_no_reward():
    assert [grade.reward for grade in Grade] == [1.0, 0.0, None]
