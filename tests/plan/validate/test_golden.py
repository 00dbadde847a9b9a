"""All published formula values; each row of the file cites the paper or card it is from."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.core.errors import DataError
from weft.plan.validate.golden import check_golden
from weft.plan.validate.rows import GOLDEN_COLUMNS, Row, read_rows

ROWS = read_rows(Path(__file__).with_name("golden_values.csv"), GOLDEN_COLUMNS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.id}-{row['category']}")
def test_value_comes_out(row: Row):
    (check,) = check_golden([row])
    assert check.holds, f"{row['item']}: {check.value} is not {check.expected}"


@pytest.mark.parametrize("row", ROWS[:: len(ROWS) // 30], ids=lambda row: row.id)
def test_another_value_would_not_pass(row: Row):
    wrong = {**row.values, "expected": str(1.3 * float(row["expected"] or 1) + 1)}
    if "rounded constants" not in row["tolerance"] and not row["expected"].startswith("["):
        (check,) = check_golden([Row(row.line, wrong)])
        assert not check.holds


def test_an_unknown_category_or_item_names_its_line():
    with pytest.raises(DataError, match="line 7: no rule computes 'colour'"):
        check_golden([Row(7, {"category": "colour", "item": "red", "expected": "1"})])
    with pytest.raises(DataError, match=r"line 8.*cannot read 'gpt-7'"):
        check_golden([Row(8, {"category": "params_total", "item": "gpt-7", "expected": "1"})])
