from __future__ import annotations

import json

import pytest

from tests.evals.support import ENGINE, tiny_model, tokenizer
from weft.core.config import from_mapping, to_toml
from weft.core.console import console
from weft.core.errors import ConfigError
from weft.core.events import Events
from weft.data.shards import TokenDocument
from weft.evals.choice import ChoiceItem
from weft.evals.harness import EvalConfig, evaluate
from weft.evals.task import ChoiceTask

HELDOUT = [TokenDocument(list(range(5, 60)), 200), TokenDocument(list(range(9, 30)), 90)]
CHOICES = ChoiceTask("toy", (ChoiceItem("What is", (" the", " 17"), 0),) * 2)


def run(**changes):
    config = EvalConfig(tasks=("addition",), num_items=8, engine=ENGINE, **changes)
    return evaluate(config, tiny_model(), tokenizer(), heldout=HELDOUT, tasks=[CHOICES])


def test_report_has_one_result_per_task_in_order():
    report = run()
    assert [(r.task, r.metric) for r in report.results] == [
        ("heldout", "bits_per_byte"), ("addition", "exact_match"), ("toy", "accuracy_per_byte"),
    ]  # fmt: skip
    assert report.score("addition") == report.results[1].score
    assert report.results[1].n == 8


def test_report_is_reproducible_and_holds_what_decides_it(tmp_path):
    first, again, other = run(), run(), run(seed=1)
    first.write(tmp_path / "a.json")
    again.write(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    saved = json.loads((tmp_path / "a.json").read_text())
    addition = saved["results"][1]
    assert {"sha256", "n", "interval", "first_prompt", "finish_reasons"} <= addition.keys()
    assert saved["tokenizer"] == tokenizer().fingerprint
    assert other.results[1].sha256 != first.results[1].sha256


def test_results_become_events():
    events = []

    class Sink:
        def write(self, event):
            events.append(event)

        def close(self):
            pass

    config = EvalConfig(tasks=(), engine=ENGINE)
    evaluate(config, tiny_model(), tokenizer(), tasks=[CHOICES], events=Events(Sink()))
    assert [(e["kind"], e["task"], e["n"]) for e in events] == [("eval", "toy", 2)]
    assert events[0]["low"] <= events[0]["score"] <= events[0]["high"]


def test_table_shows_score_and_interval():
    with console.capture() as captured:
        console.print(run().table())
    assert "bits_per_byte" in captured.get()
    assert "[0." in captured.get()


def test_model_keeps_its_mode():
    model = tiny_model().train()
    evaluate(EvalConfig(tasks=(), engine=ENGINE), model, tokenizer(), tasks=[CHOICES])
    assert model.training


def test_config_survives_toml():
    import tomllib

    config = EvalConfig(num_items=7, stride=64)
    assert from_mapping(EvalConfig, tomllib.loads(to_toml(config))) == config


def test_zero_items_are_refused():
    with pytest.raises(ConfigError, match="num_items"):
        EvalConfig(num_items=0)
