"""The scripts in examples/ run as they are, with small numbers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.markdown import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MODEL = "runs/quickstart/model"
ARGUMENTS = {
    "ask_the_standard_library": ["How do I add an argument to a parser?", "--files", "40"],
    "generate_with_llm": [MODEL],
    "grpo_addition": [MODEL, "--steps", "2", "--prompts", "2", "--max-operand", "9"],
    "lora_finetune": [MODEL, "--steps", "2"],
    "simulate_serving": ["--rates", "4", "--requests", "30"],
    "tiny_pretrain": ["--steps", "2", "--source", "notes"],
    "train_tokenizer": ["--vocab-size", "400", "--files", "5"],
}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    monkeypatch.chdir(workspace)

    def call(example: str, *more: str) -> str:
        load(ROOT / f"examples/{example}.py").main([*ARGUMENTS[example], *more])
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert f"python examples/{path.name}" in text
    assert path.stem in ARGUMENTS, "give the example small arguments and a test here"


def test_train_tokenizer_writes_a_tokenizer(run):
    assert "of 400 tokens" in run("train_tokenizer", "--out", "made/tokenizer")
    assert Path("made/tokenizer/tokenizer.json").is_file()


def test_tiny_pretrain_trains_and_generates(run):
    assert "2 steps, held-out bits per byte" in run("tiny_pretrain", "--out", "made/tiny")
    assert Path("made/tiny/model/config.json").is_file()


def test_generate_with_llm_agrees_with_the_trainer(run):
    difference = float(run("generate_with_llm").rstrip().rsplit(" ", 1)[1])
    assert difference < 1e-5


def test_grpo_addition_reports_every_step(run):
    output = run("grpo_addition", "--out", "made/grpo")
    assert "step 2: reward" in output
    assert Path("made/grpo/model/config.json").is_file()


def test_lora_finetune_writes_a_plain_checkpoint(run):
    assert "layers adapted" in run("lora_finetune", "--out", "made/lora")
    from weft.checkpoint.hf import load_model

    assert load_model(Path("made/lora/model")).num_parameters > 0


def test_simulate_serving_prints_a_row_per_rate_and_cache(run):
    lines = run("simulate_serving").splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("0%")
    assert not lines[2].endswith(" 0%")


def test_ask_the_standard_library_answers_with_citations(run):
    output = run("ask_the_standard_library", "--index", "made/stdlib.sqlite")
    assert "stdlib-docstrings/argparse.py:" in output
