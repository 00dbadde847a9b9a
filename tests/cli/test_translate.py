"""The whole of `weft translate` on a generated language."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weft.cli.main import run

NOUNS = {"Hund": "dog", "Katze": "cat", "Vogel": "bird", "Fisch": "fish"}
VERBS = {"schläft": "sleeps", "rennt": "runs", "singt": "sings"}
PAIRS = [
    (f"Der {noun} {verb}.", f"The {NOUNS[noun]} {VERBS[verb]}.") for noun in NOUNS for verb in VERBS
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for side, suffix in enumerate(("de", "en")):
        text = "".join(f"{pair[side]}\n" for pair in PAIRS)
        (folder / f"train.{suffix}").write_text(text, encoding="utf-8")
    return folder


def arguments(files: Path, out: Path, kind: str) -> list[str]:
    settings = {
        "train-source": files / "train.de", "train-target": files / "train.en",
        "val-source": files / "train.de", "val-target": files / "train.en",
        "test-source": files / "train.de", "test-target": files / "train.en",
        "model.kind": kind, "model.dim": 32, "model.num-layers": 1, "model.num-heads": 2,
        "model.hidden-dim": 32, "vocab-size": 300, "steps": 60, "tokens-per-step": 512,
        "sequence-length": 64, "dropout": 0, "precision": "fp32", "eval-interval-s": 0.15,
        "optimizer.lr": 0.01, "optimizer.matrix-lr": 0.02, "schedule.warmup-steps": 5,
        "num-threads": 1, "minutes": 5, "device": "cpu",
    }  # fmt: skip
    flags = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    return ["translate", "train", *flags, "--out", str(out)]


@pytest.mark.parametrize("kind", ["encoder_decoder", "decoder_only"])
def test_a_language_is_learnt_measured_and_spoken(
    kind: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    assert run(arguments(files, out, kind)) == 0
    shown = capsys.readouterr().out
    assert "BLEU" in shown
    assert "held-out loss" in shown
    rows = json.loads((out / "eval.json").read_text())["results"]
    assert [(row["task"], row["metric"]) for row in rows] == [
        (name, f"{metric}, {search}")
        for name in ("val", "test")
        for search in ("greedy", "beam 4")
        for metric in ("BLEU", "chrF2")
    ]
    assert all(row["score"] > 80 for row in rows)
    assert len((out / "test.translations.txt").read_text().splitlines()) == len(PAIRS)

    model = str(out / "model")
    assert run(["translate", "text", model, "Der Hund schläft.", "Der Fisch singt."]) == 0
    assert capsys.readouterr().out.splitlines() == ["The dog sleeps.", "The fish sings."]
    assert run(["translate", "eval", model, str(files / "train.de"), str(files / "train.en")]) == 0
    assert "beam 4" in capsys.readouterr().out

    assert run(arguments(files, out, kind)) == 0, "the same command finds the run done"


def test_half_a_pair_of_files_is_refused(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = arguments(files, tmp_path / "run", "encoder_decoder")
    at = flags.index("--test-target")
    assert run([*flags[:at], *flags[at + 2 :]]) == 2
    assert "test_source and test_target belong together" in capsys.readouterr().err
