"""The use of experts in a report: heat maps, figures, comparisons."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from weft.core.runs import RunDirectory
from weft.report.heat_map import MAX_COLUMNS, heat_map
from weft.report.routing import comparison, routing
from weft.report.run_view import RunView, load_run
from weft.spec import ModelShape


@pytest.fixture
def run(tmp_path: Path) -> RunView:
    with RunDirectory(tmp_path / "run").open(ModelShape()) as events:
        for step in range(3):
            counts = [10 - 4 * step, 10 + 4 * step, 10, 10]
            load = {"1": counts, "10": [10, 10, 10, 10], "2": [40, 0, 0, 0]}
            imbalance = {"1": 0.08 * step * step, "10": 0.0, "2": 3.0}
            events.emit("routing", step=step, load=load, imbalance=imbalance)
    return load_run(tmp_path / "run")


def opacities(page: str) -> list[float]:
    return [float(value) for value in re.findall(r'fill-opacity="([\d.]+)"', page)]


def test_each_layer_has_a_map_of_experts_over_time(run: RunView):
    page = routing(run)
    assert [page.index(f"<h3>layer {n}</h3>") for n in (1, 2, 10)] == sorted(
        page.index(f"<h3>layer {n}</h3>") for n in (1, 2, 10)
    )
    assert page.count("<rect") == 3 * 4 * 3
    assert "expert 3, step 2: 1" in page
    layer_1 = opacities(page[: page.index("<h3>layer 2</h3>")])
    assert layer_1 == [0.5, 0.3, 0.1, 0.5, 0.7, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    collapsed = opacities(page[page.index("<h3>layer 2</h3>") : page.index("<h3>layer 10</h3>")])
    assert collapsed == [1.0] * 3 + [0.0] * 9


def test_figures_say_how_even_the_load_is(run: RunView):
    page = routing(run)
    cells = re.findall(r"<td>([\d.]+)</td>", page)
    rows = [cells[i : i + 5] for i in range(0, 15, 5)]
    assert rows[0] == ["1", "0.0000", "0.3200", "0.1333", "1.80"]
    assert rows[1] == ["2", "3.0000", "3.0000", "3.0000", "4.00"]
    assert rows[2] == ["10", "0.0000", "0.0000", "0.0000", "1.00"]


def test_a_dense_run_has_no_such_section(tmp_path: Path):
    with RunDirectory(tmp_path).open(ModelShape()) as events:
        events.emit("step", step=1, loss=2.0)
    assert routing(load_run(tmp_path)) == ""


def test_long_runs_are_thinned_with_both_ends_kept():
    values = [[float(i) for i in range(1000)]]
    names = [f"step {i}" for i in range(1000)]
    page = heat_map(values, row_names=["a"], column_names=names, full=1000.0, label="x")
    assert page.count("<rect") == MAX_COLUMNS
    assert "a, step 0: 0" in page
    assert "a, step 999: 999" in page
    assert heat_map([], row_names=[], column_names=[], full=1.0, label="x") == ""


def test_names_are_escaped():
    page = heat_map([[1.0]], row_names=["<b>"], column_names=["<i>"], full=1.0, label="<u>")
    assert not re.search(r"<[biu]>", page)


def test_runs_stand_side_by_side():
    summary = {"runs": {"dense": {"steps": 3, "loss": 2.5}, "experts": {"steps": 3, "extra": 1e6}}}
    page = comparison(summary)
    assert "<th>dense</th><th>experts</th>" in page
    assert "<td>loss</td><td>2.5</td><td></td>" in page
    assert comparison({}) == ""
