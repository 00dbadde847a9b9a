"""What an answer says as data and as text."""

from __future__ import annotations

import json

import pytest

from weft.plan.answer import Answer, Item, Parts, listing, show
from weft.plan.figure import Figure

ANSWER = Answer(
    "title",
    facts=("a fact",),
    items=(Item.of("step time", Figure.within(2.0, 1.25, "s", "fit"), "sum"), Item("devices", 8)),
    parts=(Parts("time", "s", {"compute": 1.5, "bubble": 0.5}),),
    listings=(listing("ranking", ("name", "value"), [("a", 1), ("b", 2)]),),
    data={"fits": True},
)


def test_data_has_value_unit_grade_interval_and_formula() -> None:
    data = json.loads(json.dumps(ANSWER.to_dict()))
    step = data["figures"]["step time"]
    assert step == {
        "value": 2.0, "unit": "s", "grade": "fit", "interval_80": [1.6, 2.5], "formula": "sum",
    }  # fmt: skip
    assert data["tables"]["ranking"] == [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]
    assert data["fits"] is True


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"), (90.0, "s", "1m30s"), (400_000.0, "s", "4.63 days"),
        (3 * 2**30, "B", "3.0 GiB"), (0.4043, "share", "40.4 %"), (4.5e11, "B/s", "450 GB/s"),
        (9.89e14, "FLOP/s", "989 TFLOP/s"), (12_345, "tokens", "12,345 tokens"),
        (2.5e9, "", "2.5B"), ("never", "tokens", "never"),
    ],
)  # fmt: skip
def test_numbers_read_as_people_write_them(value: float | str, unit: str, text: str) -> None:
    assert show(value, unit) == text
