from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputFileError
from weft.core.files import write_json
from weft.core.runs import RunDirectory
from weft.report.svg import Series, line_chart, nice_ticks
from weft.report.write import write_report
from weft.spec import ModelShape


class Balance(HTMLParser):
    """Raises when a tag is closed that is not open."""

    VOID = ("meta", "line", "polyline", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        assert tag in self.VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with RunDirectory(tmp_path / "all").open(ModelShape()) as events:
        events.emit("note", text="begin")
    with RunDirectory(tmp_path / "all" / "pretrain").open(ModelShape()) as events:
        for step in range(50):
            events.emit("step", step=step, loss=4 - step / 20, tokens_per_s=1000 + step)
            if step % 10 == 0:
                events.emit("sample", step=step, text=f"<script>alert({step})</script>")
    summary = {
        "bits_per_byte": 1.987,
        "num_parameters": 1_500_000,
        "tokens_per_s": 12_345.0,
        "exact_match": {
            "after_sft": {"value": 0.25, "low": 0.2, "high": 0.3, "n": 400},
            "after_grpo": {"value": 0.55, "low": 0.5, "high": 0.6, "n": 400},
        },
        "duration_s": {"corpus": 3.0, "pre-train": 300.0},
        "predictions": {
            "duration": {
                "value": 600.0,
                "low": 400.0,
                "high": 900.0,
                "unit": "s",
                "grade": "fit",
                "measured": 500.0,
            }
        },
    }
    write_json(tmp_path / "all" / "summary.json", summary)
    return tmp_path / "all"


def test_one_self_contained_page(run: Path) -> None:
    page = write_report(run).read_text()
    assert not re.search(r"(src|href)\s*=|@import|url\(|https?://", page)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(40)" in page
    parser = Balance()
    parser.feed(page)
    assert parser.open == []


def test_it_shows_curves_table_and_errors_of_predictions(run: Path) -> None:
    page = write_report(run).read_text()
    assert page.count("<polyline") == 2
    for text in ("1.987", "25.0%", "50.0% to 60.0%", "+20%, inside", "5m00s", "nonsense"):
        assert text in page
    markdown = (run / "report.md").read_text()
    assert "- exact match after GRPO: 55.0% (50.0% to 60.0%, n = 400)" in markdown
    assert "pretrain, last step: " in markdown


def test_a_run_without_results_still_has_a_report(tmp_path: Path) -> None:
    with RunDirectory(tmp_path).open(ModelShape()):
        pass
    assert "Configuration" in write_report(tmp_path).read_text()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="holds no run"):
        write_report(tmp_path)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_cover_the_range_and_are_few(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-9 * abs(low) + 1e-9
    assert ticks[-1] >= low + span - 1e-9 * abs(low + span) - 1e-9
    assert 2 <= len(ticks) <= 8


def test_charts_skip_what_is_not_a_number() -> None:
    chart = line_chart([Series("a", [0, 1, 2], [1.0, float("nan"), 2.0])], x_label="x", y_label="y")
    assert len(re.search(r'points="([^"]*)"', chart).group(1).split()) == 2  # type: ignore[union-attr]
    assert line_chart([Series("a", [0], [float("nan")])], x_label="x", y_label="y") == ""
    long = Series("a", list(range(5000)), [float(i) for i in range(5000)])
    assert len(long.points) <= 601
    assert long.points[-1] == (4999.0, 4999.0)
