"""Sliders: the table is the planner's, and the page shows what the table says."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.web.browser import NAMES, Browser, find_browser

from weft.cli.plan.sliders import serving_table, training_layout, training_table
from weft.plan.economy import price_per_million_tokens, run_bill
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.deployment import Deployment
from weft.plan.inference.load import Traffic
from weft.plan.inference.step import StepModel
from weft.plan.layout import TrainingLayout
from weft.plan.ledger import training_ledger
from weft.plan.step_time import step_time
from weft.report.html import page
from weft.report.sliders import Axis, Column, Sliders, sliders_section
from weft.spec import ModelSpec, zoo

PROGRAM = find_browser()
CLUSTER = Cluster.parse("H100x8")
LAYOUT = TrainingLayout(data=8, zero=3, global_batch=64, length=2048)
TOKENS, PRICE = 1e11, 2.5


def decoder() -> ModelSpec:
    spec = zoo.spec("llama-3.2-1b")
    assert isinstance(spec, ModelSpec)
    return spec


def training() -> Sliders:
    return training_table(decoder(), LAYOUT, CLUSTER, TOKENS, PRICE)


def serving() -> Sliders:
    model = StepModel(Deployment(decoder(), Cluster.parse("H100x2"), tensor=2))
    return serving_table(model, Traffic(512, 64), PRICE)


def row_of(sliders: Sliders, places: list[int]) -> tuple[float, ...] | str:
    index = 0
    for axis, place in zip(sliders.axes, places, strict=True):
        index = index * len(axis.values) + place
    return sliders.rows[index]


def test_every_row_is_what_the_planner_says_of_its_layout() -> None:
    sliders = training()
    rng = random.Random(0)
    found = 0
    while found < 20:
        places = [rng.randrange(len(axis.values)) for axis in sliders.axes]
        row = row_of(sliders, places)
        if isinstance(row, str):
            continue
        point = tuple(axis.values[p] for axis, p in zip(sliders.axes, places, strict=True))
        layout = training_layout(LAYOUT, CLUSTER, point)
        assert isinstance(layout, TrainingLayout)
        assert row[0] == step_time(decoder(), layout, CLUSTER).total_s
        assert row[1] == training_ledger(decoder(), layout).total
        found += 1


def test_names_in_formulas_are_told_apart() -> None:
    with pytest.raises(AssertionError, match="names"):
        Sliders((Axis("x", (1,)),), (Column("x", "s"),), ((1.0,),))


def test_data_cannot_end_the_script_it_lies_in() -> None:
    sliders = Sliders((Axis("x", ("</script>",)),), (Column("y", "s"),), ((1.0,),))
    assert sliders_section("t", sliders).count("</script>") == 2


class Page:
    """The section in a real browser."""

    def __init__(self, browser: Browser, path: Path, sliders: Sliders) -> None:
        self.browser, self.sliders = browser, sliders
        path.write_text(page("sliders", (), [sliders_section("Move", sliders)]))
        browser.open(path.as_uri())

    def move(self, places: list[int]) -> None:
        """Move every slider and tell the page so, as a hand does."""
        for axis, place in zip(self.sliders.axes, places, strict=True):
            selector = json.dumps(f'input[data-axis="{axis.name}"]')
            self.browser.evaluate(
                f"(() => {{ const e = document.querySelector({selector}); e.value = {place};"
                "e.dispatchEvent(new Event('input', {bubbles: true})); })()"
            )

    def value(self, name: str) -> float:
        selector = json.dumps(f'[data-name="{name}"]')
        return float(self.browser.evaluate(f"document.querySelector({selector}).dataset.value"))

    def verdict(self) -> str | None:
        return self.browser.evaluate("document.querySelector('[data-fits]')?.dataset.fits")


@pytest.mark.e2e
@pytest.mark.skipif(PROGRAM is None, reason=f"no browser found (looked for {', '.join(NAMES)})")
def test_the_pages_arithmetic_is_the_planners(tmp_path: Path) -> None:
    assert PROGRAM is not None
    rng = random.Random(1)
    with Browser(PROGRAM, tmp_path / "profile") as browser:
        _check_training(Page(browser, tmp_path / "train.html", training()), rng)
        _check_serving(Page(browser, tmp_path / "infer.html", serving()), rng)
        assert browser.problems() == []
        assert all(url.startswith("file:") for url in browser.requested_urls())


def _check_training(shown: Page, rng: random.Random) -> None:
    sliders, seen = shown.sliders, set()
    batches = sliders.axes[5].values
    for _ in range(25):
        places = [rng.randrange(len(axis.values)) for axis in sliders.axes]
        shown.move(places)
        row = row_of(sliders, places)
        seen.add(shown.verdict())
        if isinstance(row, str):
            assert shown.verdict() == "impossible"
            continue
        fits = row[1] <= CLUSTER.device.memory_bytes
        assert shown.verdict() == ("yes" if fits else "no")
        assert shown.value("step time") == pytest.approx(row[0], rel=1e-6)
        assert shown.value("peak memory") == pytest.approx(row[1], rel=1e-6)
        tokens_per_step = int(batches[places[5]]) * LAYOUT.length
        seconds = TOKENS / tokens_per_step * row[0]
        bill = run_bill(8, seconds, price_per_hour=PRICE)
        assert shown.value("duration") == pytest.approx(seconds, rel=1e-6)
        assert shown.value("device hours") == pytest.approx(bill.device_hours, rel=1e-6)
        assert shown.value("cost") == pytest.approx(bill.money, rel=1e-6)
        parts = [shown.value("time of a step/compute"), row[4]]
        assert parts[0] == pytest.approx(parts[1], rel=1e-6)
    assert {"impossible", "yes"} <= seen


def _check_serving(shown: Page, rng: random.Random) -> None:
    for _ in range(10):
        places = [rng.randrange(len(axis.values)) for axis in shown.sliders.axes]
        shown.move(places)
        row = row_of(shown.sliders, places)
        assert not isinstance(row, str)
        assert shown.value("TTFT") == pytest.approx(row[0], rel=1e-6)
        money = price_per_million_tokens(row[2], num_devices=2, price_per_hour=PRICE)
        assert shown.value("cost per million output tokens") == pytest.approx(money, rel=1e-6)
