"""What is reported of speculation is what the engine counts."""

from __future__ import annotations

import json

import pytest

from tests.engine.features.support import tiny
from tests.engine.speculation.support import eagle, prompts, trained
from weft.core.console import console
from weft.core.errors import ConfigError, UnsupportedError
from weft.engine.speculation.config import SpeculationConfig
from weft.engine.speculation.counters import SpeculationStats
from weft.evals.speculation import (
    MeasureConfig,
    SpeculationReport,
    check_measurable,
    cut_prompts,
    measure_speculation,
    spread,
)

SMALL = MeasureConfig(num_prompts=3, prompt_tokens=14, max_tokens=24, max_num_sequences=2)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_head_is_measured_and_the_texts_stay_the_same(temperature: float):
    config = MeasureConfig(3, 14, 24, 2, temperature)
    report = measure_speculation(
        trained(), SpeculationConfig("eagle", 3), prompts(5), config, drafter=eagle()
    )
    stats = report.stats
    assert report.num_prompts == report.num_equal == 3
    assert report.num_tokens == 3 * 24
    assert stats.num_drafts > 0
    shares = stats.acceptance_by_position
    assert len(shares) <= 3
    assert list(shares) == sorted(shares, reverse=True)
    assert 1.0 + sum(shares) == pytest.approx(stats.tokens_per_draft)
    if temperature == 0.0:
        assert shares[0] > 0.5


def test_shares_by_position_are_of_all_drafts():
    stats = SpeculationStats(10, 40, 12, (8, 3, 1))
    assert stats.acceptance_by_position == (0.8, 0.3, 0.1)
    assert SpeculationStats().acceptance_by_position == ()


def test_the_report_is_a_table_and_rows():
    report = SpeculationReport("eagle", SpeculationStats(10, 40, 12, (8, 3, 1)), 2, 2, 22, 3.0, 1.5)
    with console.capture() as capture:
        console.print(report.table("title"))
    text = capture.get()
    assert "guess 2 held" in text
    assert "30.0%" in text
    assert "2.20" in text
    assert "2 of 2" in text
    rows = {row["metric"]: row["score"] for row in report.rows()}
    assert rows["speed-up"] == 2.0
    assert rows["guess 3 held"] == 0.1
    assert json.loads(json.dumps(report.rows())) == report.rows()


def test_items_are_taken_from_all_over_the_list():
    assert spread(100, 4) == [0, 25, 50, 75]
    assert spread(3, 5) == [0, 1, 2]
    assert spread(0, 5) == []


def test_few_documents_give_several_prompts_each():
    config = MeasureConfig(num_prompts=4, prompt_tokens=3)
    assert cut_prompts([[1, 2], []], config) == [[1, 2]]
    assert cut_prompts([[1, 2, 3, 4, 5, 6, 7]], config) == [[1, 2, 3], [4, 5, 6]]
    many = cut_prompts([list(range(100)), list(range(100, 200))], config)
    assert [prompt[0] for prompt in many] == [0, 48, 100, 148]


def test_what_cannot_be_measured_is_refused_with_a_fix():
    ngram = SpeculationConfig("ngram")
    with pytest.raises(ConfigError, match="context of 128") as caught:
        check_measurable(MeasureConfig(prompt_tokens=100, max_tokens=64), ngram, trained().spec)
    assert caught.value.fix == "lower both to at most 64"
    with pytest.raises(UnsupportedError, match="take back wrong guesses"):
        check_measurable(SMALL, ngram, tiny("gated-delta").spec)
    with pytest.raises(ConfigError, match="no prompt"):
        measure_speculation(trained(), ngram, [], SMALL)
    with pytest.raises(ConfigError, match="num_prompts is 0"):
        MeasureConfig(num_prompts=0)
