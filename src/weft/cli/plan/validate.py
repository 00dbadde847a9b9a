"""``weft plan validate``: predictions beside published measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weft.cli.plan.options import Output
from weft.cli.plan.output import emit
from weft.core.errors import ConfigError, WeftError
from weft.plan.answer import Answer, Item, Listing, listing
from weft.plan.validate import memory_fit, training_fit
from weft.plan.validate.golden import GoldenCheck, check_golden
from weft.plan.validate.inference import read_cases
from weft.plan.validate.inference_fit import leave_one_source_out as refit
from weft.plan.validate.rows import (
    GOLDEN_COLUMNS,
    INFERENCE_COLUMNS,
    TRAINING_COLUMNS,
    Row,
    read_rows,
)
from weft.plan.validate.table import Comparison, ErrorLine, error_table
from weft.plan.validate.training import compare_training, grid_quality, out_of_memory_verdicts

_COLUMNS = ("quantity", "source", "rows", "median", "p90", "bias", "in 80 %")
_LONGEST = 100


def validate(
    *,
    training: Path | None = None,
    inference: Path | None = None,
    golden: Path | None = None,
    leave_one_source_out: bool = False,
    output: Output = Output(),  # noqa: B008
) -> None:
    """Print how wrong predictions are, by source, with the worst rows explained.

    Constants ship with the package; nothing is fitted to the files that are judged, unless you
    ask how good the model is on sources its constants have not seen.

    Parameters
    ----------
    training
        A CSV file of training measurements.
    inference
        A CSV file of inference measurements.
    golden
        A CSV file of formula values, every one of which must hold.
    leave_one_source_out
        Fit the constants anew without each source and judge the source by them; takes minutes,
        and incomplete configurations are left out.
    """
    if training is None and inference is None and golden is None:
        raise ConfigError(
            "there is nothing to judge",
            fix="give --training FILE, --inference FILE or --golden FILE",
        )
    skipped: dict[str, str] = {}
    compared: list[Comparison] = []
    items: list[Item] = []
    tables: list[Listing] = []
    if training is not None:
        rows = read_rows(training, TRAINING_COLUMNS)
        found = list(_training(rows, skipped))
        compared += _refitted_training(rows, skipped) if leave_one_source_out else found
        tables += _choices(rows, skipped)
        items += _verdicts(rows, skipped)
    if inference is not None:
        cases, left_out = read_cases(read_rows(inference, INFERENCE_COLUMNS))
        skipped.update(left_out)
        compared += refit(cases) if leave_one_source_out else [case.compare() for case in cases]
    if golden is not None:
        checks = list(_golden(read_rows(golden, GOLDEN_COLUMNS), skipped))
        items.append(_golden_item(checks))
        tables += _failures(checks)
    emit(_answer(compared, items, tables, skipped), output)


def _training(rows: list[Row], skipped: dict[str, str]) -> Iterator[Comparison]:
    for row in rows:
        try:
            yield from compare_training([row])
        except WeftError as error:
            skipped[row.id] = error.message


def _refitted_training(rows: list[Row], skipped: dict[str, str]) -> list[Comparison]:
    read = [row for row in rows if row.id not in skipped and (row["dp"] or row["gbs"])]
    speed = training_fit.leave_one_source_out(training_fit.throughput_cases(read))
    return speed + memory_fit.leave_one_source_out(memory_fit.memory_cases(read))


def _choices(rows: list[Row], skipped: dict[str, str]) -> Iterator[Listing]:
    """How well the best of many layouts of one model is chosen, where a source has many."""
    found = grid_quality([row for row in rows if row.id not in skipped])
    cells = [
        (one.arch[:40], one.num_rows, f"{one.spearman:.3f}", f"{100 * one.regret:.1f} %")
        for one in found
    ]
    if cells:
        columns = ("model", "layouts", "Spearman", "regret")
        yield listing("choosing among measured layouts", columns, cells)


def _verdicts(rows: list[Row], skipped: dict[str, str]) -> Iterator[Item]:
    verdicts = out_of_memory_verdicts([row for row in rows if row.id not in skipped])
    if verdicts:
        right = sum(predicted == measured for _, predicted, measured in verdicts)
        formula = f"{right} of {len(verdicts)} rows that tell whether something fitted"
        yield Item("fits or not, told rightly", right / len(verdicts), "share", "fit", formula)


def _golden(rows: list[Row], skipped: dict[str, str]) -> Iterator[GoldenCheck]:
    for row in rows:
        try:
            yield from check_golden([row])
        except WeftError as error:
            skipped[row.id] = error.message
            yield GoldenCheck(row, float("nan"), float("nan"), holds=False)


def _golden_item(checks: list[GoldenCheck]) -> Item:
    held = sum(check.holds for check in checks)
    return Item("golden values that hold", f"{held} of {len(checks)}", "", "spec")


def _failures(checks: list[GoldenCheck]) -> Iterator[Listing]:
    rows = [
        (check.row.id, check.row["category"], check.row["item"][:40], check.value, check.expected)
        for check in checks
        if not check.holds
    ]
    if rows:
        yield listing("do not hold", ("id", "category", "item", "computed", "expected"), rows)


def _answer(
    compared: list[Comparison],
    items: list[Item],
    tables: list[Listing],
    skipped: dict[str, str],
) -> Answer:
    table = error_table(compared)
    listings = []
    if table.lines:
        listings.append(listing("errors, complete configurations", _COLUMNS, _cells(table.lines)))
    if table.partial:
        title = "errors, configuration partly known"
        listings.append(listing(title, _COLUMNS, _cells(table.partial)))
    if table.worst:
        worst = [
            (one.id, one.source, one.quantity, f"{100 * one.error:+.1f} %",
             one.explanation[:_LONGEST])
            for one in table.worst
        ]  # fmt: skip
        columns = ("id", "source", "quantity", "error", "where the prediction comes from")
        listings.append(listing("furthest off", columns, worst))
    listings += tables
    if skipped:
        rows = [(row, reason[:_LONGEST]) for row, reason in skipped.items()]
        listings.append(listing("left out", ("id", "why"), rows))
    medians = tuple(
        Item(f"{line.quantity}, median error", line.median, "share", "fit",
             f"{line.num_rows} rows; macro over sources {100 * table.macro(line.quantity):.1f} %")
        for line in table.lines if line.source == "all"
    )  # fmt: skip
    data: dict[str, Any] = {
        "errors": [asdict(line) for line in table.lines],
        "errors_partial": [asdict(line) for line in table.partial],
        "rows": [_row(one) for one in compared],
        "skipped": skipped,
    }
    return Answer(
        "predictions against published measurements",
        items=(*medians, *items),
        listings=tuple(listings),
        data=data,
    )


def _cells(lines: tuple[ErrorLine, ...]) -> list[tuple[str, ...]]:
    return [
        (line.quantity, line.source, str(line.num_rows), f"{100 * line.median:.1f} %",
         f"{100 * line.p90:.1f} %", f"{100 * line.bias:+.1f} %", f"{100 * line.coverage:.0f} %")
        for line in lines
    ]  # fmt: skip


def _row(one: Comparison) -> dict[str, Any]:
    return {
        "id": one.id,
        "source": one.source,
        "quantity": one.quantity,
        "predicted": one.predicted.value,
        "low": one.predicted.low,
        "high": one.predicted.high,
        "measured": one.measured,
        "unit": one.predicted.unit,
        "grade": one.predicted.grade,
        "complete": one.complete,
    }
