"""Exit codes, messages and help texts of the command line."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from weft.cli import main as module
from weft.cli.app import app
from weft.cli.main import run
from weft.core.config import from_mapping, to_mapping, to_toml
from weft.recipes import RECIPES

VERBS = [
    ["quickstart"], ["doctor"], ["data", "build"], ["tokenizer", "train"],
    ["tokenizer", "encode"], ["tokenizer", "inspect"], ["train"], ["sft"], ["grpo"], ["eval"],
    ["generate"], ["chat"], ["serve"], ["convert"], ["report"], ["plan"], ["recipes", "ls"],
    ["recipes", "show"], ["recipes", "cp"], ["model", "show"], ["model", "list"],
    ["translate", "train"], ["translate", "eval"], ["translate", "text"],
    ["speculator", "train"], ["speculator", "eval"],
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_with_an_example(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text
    assert f"weft {' '.join(verb)}" in text


def test_the_verbs_are_those_listed() -> None:
    listed = {name for name in app if not name.startswith("-")}
    assert listed == {verb[0] for verb in VERBS}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serv"], 'Did you mean "serve"'),
        (["tokenizer", "trian"], 'Did you mean "train"'),
        (["recipes", "show", "pretrian"], "did you mean 'pretrain'"),
        (["recipes", "cp", "sft", "."], "exists"),
        (["train", "none.toml", "--out", "x"], "there is no configuration file 'none.toml'"),
        (["train", "--optimizer.l", "1", "--out", "x"], "did you mean 'optimizer.lr'"),
        (["train", "sft", "--out", "x"], "not a TrainJob"),
        (["generate", "nowhere", "Hi"], "'nowhere'"),
        (["report", "nowhere"], "nowhere"),
        (["tokenizer", "encode", "nowhere", "Hi"], "nowhere"),
        (["data", "build", "nowhere.txt", "--out", "x"], "nowhere.txt"),
        (["sft", "nowhere", "--tasks", "addition", "--out", "x"], "nowhere"),
        (["convert", "nowhere", "x"], "nowhere"),
    ],
)
def test_wrong_input_is_one_message_with_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "fix: " in error
    assert "Traceback" not in error


def test_a_bug_is_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr("weft.cli.recipes.table", broken)
    assert run(["recipes", "ls"]) == 1
    assert "unexpected ZeroDivisionError: odd" in capsys.readouterr().err
    (report,) = tmp_path.glob("weft-error-*.txt")
    assert "Traceback" in report.read_text()


def test_ctrl_c_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("weft.cli.recipes.table", interrupted)
    assert run(["recipes", "ls"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_complete_and_survives_toml(name: str) -> None:
    config = RECIPES[name].build()
    assert from_mapping(type(config), to_mapping(config)) == config
    text = to_toml(config)
    assert text.startswith("#"), "every field needs help"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_field_of_a_recipe_is_explained(name: str) -> None:
    from weft.core.config import fields

    unexplained = [leaf.key for leaf in fields(RECIPES[name].build()) if not leaf.help]
    assert not unexplained


def test_recipes_can_be_copied_and_edited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.toml"
    assert run(["recipes", "cp", "pretrain", str(file)]) == 0
    assert run(["recipes", "cp", "pretrain", str(file)]) == 2
    assert "--force" in capsys.readouterr().err
    assert run(["recipes", "cp", "pretrain", str(file), "--force"]) == 0
    configs = importlib.import_module("weft.core.config")
    assert configs.load_toml(RECIPES["pretrain"].build(), file) == RECIPES["pretrain"].build()


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "ls"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in RECIPES)
