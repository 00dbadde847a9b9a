"""Published training runs; each row of the file names the page it is from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from weft.plan.figure import Figure
from weft.plan.training_constants import training_constants
from weft.plan.validate.fitting import Constant, fit, start, values
from weft.plan.validate.rows import TRAINING_COLUMNS, read_rows
from weft.plan.validate.table import Comparison, error_table, regret, spearman
from weft.plan.validate.training import (
    THROUGHPUT,
    compare_training,
    grid_quality,
    out_of_memory_verdicts,
    read_case,
)
from weft.plan.validate.training_fit import CONSTANTS, to_toml

ROWS = read_rows(Path(__file__).with_name("training_rows.csv"), TRAINING_COLUMNS)


@pytest.fixture(scope="module")
def table():
    return error_table(compare_training(ROWS))


def test_speed_of_published_runs_is_predicted_within_a_tenth(table):
    line = table.headline("training throughput")
    assert line.num_rows >= 20
    assert line.median < 0.10
    assert line.p90 < 0.30


def test_memory_of_published_runs_is_predicted_within_a_tenth(table):
    line = table.headline("training memory")
    assert line.median < 0.07
    assert line.p90 < 0.15


def test_layouts_of_one_model_are_ranked():
    (quality,) = grid_quality(ROWS)
    assert quality.num_rows >= 20
    assert quality.regret <= 0.03
    assert quality.spearman >= 0.9


def test_runs_that_fitted_are_predicted_to_fit():
    verdicts = out_of_memory_verdicts(ROWS)
    assert verdicts
    assert all(predicted == fitted for _, predicted, fitted in verdicts)


def test_the_table_prints_sources_and_explains_the_worst(table):
    text = table.text()
    assert "bigscience-prequel" in text
    assert "compute" in text
    assert "configuration partly known" in text
    assert 0.0 < table.macro("training throughput") < 0.2


def test_every_way_to_print_speed_becomes_seconds():
    metrics = {row["metric"] for row in ROWS if row["metric"] in THROUGHPUT}
    assert {"tokens_per_s_per_gpu", "step_time_s", "hw_tflops_per_gpu"} <= metrics
    for row in ROWS:
        if row["metric"] in THROUGHPUT:
            assert read_case(row).measured_step_s > 0.0


def test_networks_named_in_a_row_replace_the_catalogue():
    row = next(row for row in ROWS if "Omni-Path" in row["hardware"])
    assert read_case(row).cluster.scale_out.bandwidth == pytest.approx(4 * 100e9 / 8 / 8)


def test_shipped_constants_are_written_as_they_are_read():
    import tomllib

    from weft.plan.training_constants import from_table

    text = to_toml(training_constants())
    again = from_table(tomllib.loads(text))
    assert again == training_constants()
    fitted = {constant.name.partition(".")[0] for constant in CONSTANTS}
    assert fitted <= set(again.__dataclass_fields__)


def test_table_of_made_up_comparisons():
    def made(value, measured, source="a", complete=True):
        figure = Figure.within(value, 1.1, "s", "fit")
        return Comparison("x", source, "time", figure, measured, complete)

    table = error_table(
        [made(1.0, 1.0), made(1.2, 1.0), made(2.0, 1.0, "b"), made(9, 1, "c", False)]
    )
    line = table.headline("time")
    assert (line.num_rows, line.median, line.coverage) == (3, pytest.approx(0.2), 1 / 3)
    assert table.macro("time") == pytest.approx((0.1 + 1.0) / 2)
    assert [item.source for item in table.worst] == ["b", "a", "a"]
    assert [line.source for line in table.partial] == ["all", "c"]


def test_rank_correlation_and_regret():
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 1, 2], [5, 5, 9]) == pytest.approx(1.0)
    assert regret([2.0, 1.0], [1.0, 1.5]) == 0.5


def test_fit_finds_constants_in_spite_of_outliers():
    generator = np.random.default_rng(0)
    work, traffic = generator.uniform(1, 10, 200), generator.uniform(1, 10, 200)
    measured = 3.0 * work + 0.5 * traffic
    measured[:10] *= 3.0
    constants = (Constant("work", 1.0, 0.1), Constant("traffic", 1.0, 0.1))

    def residuals(x):
        a, b = np.exp(x)
        return np.log((a * work + b * traffic) / measured)

    found = values(constants, fit(constants, residuals, num_steps=30))
    assert found["work"] == pytest.approx(3.0, rel=0.05)
    assert found["traffic"] == pytest.approx(0.5, rel=0.2)


def test_what_rows_cannot_tell_stays_at_its_prior():
    constants = (Constant("seen", 1.0, 0.1), Constant("unseen", 7.0), Constant("low", 2.0, low=3.0))
    x = fit(constants, lambda x: np.array([x[0] - np.log(2.0)] * 5))
    assert values(constants, x)["unseen"] == pytest.approx(7.0)
    assert values(constants, start(constants))["low"] == 3.0
