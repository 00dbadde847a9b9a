"""The comparison end to end on generated text, with its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from weft.checkpoint.hf import load_model
from weft.core.events import read_events
from weft.data.build import CorpusConfig
from weft.data.dedup import DedupConfig
from weft.plan.parameters import count_parameters
from weft.recipes.moe import MoEComparison, moe_comparison, pretrain_moe, run_comparison
from weft.spec import ExpertShape, ModelShape, MoESpec


def test_as_many_parameters_are_active_as_in_the_dense_model():
    runs = moe_comparison().runs
    counts = {name: count_parameters(run.model.build(2048)) for name, run in runs.items()}
    routers = 3 * 8 * 128
    assert counts["experts"].active == counts["dense"].total + routers
    assert counts["experts"].total > 1.5 * counts["dense"].total
    sparse, dense = pretrain_moe().model.build(2048), ModelShape().build(2048)
    assert isinstance(sparse.layers[0].ffn, MoESpec)
    extra = 4 * (8 * 256 + 2 * 64)  # routers and QK-norms
    assert count_parameters(sparse).active == count_parameters(dense).total + extra


@pytest.fixture
def config(tmp_path: Path) -> MoEComparison:
    folder = tmp_path / "texts"
    folder.mkdir()
    for index in range(24):
        lines = [f"{word} {index} and {index + 1} make {2 * index + 1}." for word in ("So", "Then")]
        text = f"Lesson {index}. " + " ".join(lines * 6)
        (folder / f"{index}.txt").write_text(text, encoding="utf-8")
    base = moe_comparison()
    corpus = CorpusConfig(sources=(str(folder),), heldout_share=0.2, dedup=DedupConfig(near=False))
    training = replace(
        base.training,
        steps=6,
        sequence_length=32,
        tokens_per_step=128,
        log_interval_s=1e-9,
        eval_interval_s=None,
        model=ModelShape(family="qwen3", dim=32, num_layers=2, num_heads=2, ffn_dim=64),
    )
    return MoEComparison(corpus, 300, training, ExpertShape(num_experts=4, top_k=2, aux_loss=0.02))


def test_both_runs_end_in_one_report(config: MoEComparison, tmp_path: Path):
    out = tmp_path / "run"
    summary = run_comparison(config, out)
    dense, sparse = summary["runs"]["dense"], summary["runs"]["experts"]
    assert dense["steps"] == sparse["steps"] == 6
    assert dense["bits_per_byte"] > 0
    assert sparse["num_parameters"] > dense["num_parameters"]
    routers = 2 * 4 * 32
    assert sparse["num_active_parameters"] == dense["num_active_parameters"] + routers
    assert load_model(out / "experts" / "model").spec.family == "qwen3_moe"
    events = list(read_events(out / "experts" / "metrics.jsonl", "routing"))
    assert [event["step"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert sum(events[0]["load"]["0"]) == 128 * 2
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "experts: use of experts" in page
    assert "load of the experts of layer 1" in page
    assert "Side by side" in page
    assert "dense: use of experts" not in page
    again = run_comparison(config, out)["runs"]
    for name, run in summary["runs"].items():
        assert again[name]["steps"] == 6, "a finished comparison is not run again"
        assert again[name]["loss"] == run["loss"]
