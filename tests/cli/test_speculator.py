"""``weft speculator`` on a model of random weights."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from weft.checkpoint.hf import save_model
from weft.cli import speculator as module
from weft.cli.main import run
from weft.core.events import read_events
from weft.core.runs import RunDirectory
from weft.data.build import CorpusConfig, build_corpus
from weft.data.corpus import Corpus
from weft.data.instruct import write_instructions
from weft.data.loader import Loader
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.engine.speculation.config import KINDS, SpeculationConfig
from weft.models.decoder import Decoder
from weft.spec import ModelShape
from weft.text.train import train_bpe

SMALL = ["--sequence-length", "32", "--tokens-per-step", "64", "--num-guesses", "2", "--device",
         "cpu", "--precision", "fp32", "--num-threads", "1", "--log-interval-s", "0",
         "--measure.num-prompts", "2", "--measure.prompt-tokens", "8", "--measure.max-tokens",
         "12"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``corpus``, ``chats.jsonl`` and ``model``."""
    folder = tmp_path_factory.mktemp("speculator")
    (folder / "notes").mkdir()
    for number in range(40):
        text = " ".join(f"word{number * index % 7} and {index}" for index in range(40))
        (folder / f"notes/{number}.txt").write_text(f"Note {number} of the weft: {text}.\n")
    sources = CorpusConfig(sources=(str(folder / "notes"),), heldout_share=0.5)
    build_corpus(sources, folder / "corpus")
    tokenizer = train_bpe(Corpus(folder / "corpus").train_texts(), vocab_size=300)
    shape = ModelShape(dim=16, num_layers=1, num_heads=2, num_kv_heads=1, context_length=64)
    save_model(Decoder(shape.build(tokenizer.vocab_size)), folder / "model", tokenizer=tokenizer)
    chats = [
        [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n} is it"}]
        for n in range(25)
    ]
    write_instructions(folder / "chats.jsonl", chats)
    return folder


def train(folder: Path, out: Path, *flags: str) -> int:
    texts = [] if "--data" in flags else ["--corpus", str(folder / "corpus")]
    model = str(folder / "model")
    return run(["speculator", "train", model, *texts, *SMALL, *flags, "--out", str(out)])


@pytest.mark.parametrize("kind", ["eagle", "medusa", "block"])
def test_a_head_is_trained_measured_and_served_with_the_command_printed(
    kind: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    assert train(folder, out, "--kind", kind, "--steps", "2") == 0
    shown = capsys.readouterr().out
    assert "tokens per step with guesses" in shown
    assert "2 of 2" in shown, "guesses change no token"
    assert RunDirectory(out).state == "done"
    (event,) = read_events(out / "metrics.jsonl", "eval")
    assert event["tokens_per_step"] == pytest.approx(1 + sum(event["acceptance_by_position"]))
    rows = json.loads((out / "eval.json").read_text())["results"]
    assert {row["task"] for row in rows} == {f"speculation ({kind})"}

    words = shlex.split(shown.splitlines()[-1])
    assert words[:3] == ["weft", "serve", str(folder / "model")]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given["--speculation.kind"] == kind
    config = SpeculationConfig(kind, path=given["--speculation.path"], switch=None)
    llm = LLM.load(folder / "model", config=EngineConfig(num_blocks=16, speculation=config))
    llm.generate("Note 3 of")
    stats = llm.stats().speculation
    assert stats is not None
    assert stats.num_drafts > 0

    assert train(folder, out, "--kind", kind, "--steps", "2") == 0, "the run is done"


def test_conversations_teach_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = str(folder / "chats.jsonl")
    assert train(folder, tmp_path, "--data", data, "--kind", "medusa", "--steps", "1") == 0
    assert "2 of 2" in capsys.readouterr().out


def test_ctrl_c_leaves_a_head_that_can_be_measured(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    batch = Loader.batch

    def interrupting(self, index):
        if index == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(Loader, "batch", interrupting)
        assert train(folder, tmp_path, "--steps", "4") == 130
    error = capsys.readouterr().err
    assert "stopped after step 2" in error
    assert "the same command again" in error
    assert RunDirectory(tmp_path).state == "interrupted"
    head = str(tmp_path / "head")
    flags = ["--speculation.kind", "eagle", "--speculation.path", head, *SMALL[-6:]]
    corpus = ["--corpus", str(folder / "corpus")]
    assert run(["speculator", "eval", str(folder / "model"), *corpus, *flags]) == 0
    assert "2 of 2" in capsys.readouterr().out
    assert train(folder, tmp_path, "--steps", "4") == 0
    assert "4 steps" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["ngram", "suffix"])
def test_guesses_without_a_network_are_measured(
    kind: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    texts = ["--data", str(folder / "chats.jsonl")]
    flags = ["--speculation.kind", kind, *SMALL[-6:], "--out", str(tmp_path)]
    assert run(["speculator", "eval", str(folder / "model"), *texts, *flags]) == 0
    assert "speed-up" in capsys.readouterr().out
    assert json.loads((tmp_path / "eval.json").read_text())["results"]


@pytest.mark.parametrize(
    ("verb", "flags", "message", "fix"),
    [
        ("train", [], "no text to draft for", "--corpus FOLDER"),
        ("train", ["--corpus", "c", "--data", "d"], "both corpus and data", "leave one"),
        ("train", ["--kind", "eagel"], "kind = 'eagel'", "eagle"),
        ("train", ["--corpus", "nowhere"], "'nowhere' holds no complete corpus", "weft data build"),
        ("eval", [], "no text to draft for", "--data CHATS.jsonl"),
        ("eval", ["--data", "c.jsonl", "--speculation.kind", "eagl"], "'eagl'", "eagle"),
        ("eval", ["--corpus", "c", "--measure.max-tokens", "90"], "context of 64", "at most 32"),
        ("eval", ["--corpus", "CORPUS", "--speculation.kind", "medusa", "--measure.prompt-tokens",
                  "8", "--measure.max-tokens", "8"], "no network to draft with",
         "speculation.path"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_message_with_a_fix(
    verb: str,
    flags: list[str],
    message: str,
    fix: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    flags = [str(folder / "corpus") if flag == "CORPUS" else flag for flag in flags]
    out = ["--out", str(tmp_path)] if verb == "train" else []
    small = SMALL if verb == "train" else []
    assert run(["speculator", verb, str(folder / "model"), *small, *flags, *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert fix in error.partition("fix: ")[2]


def test_help_names_every_kind_of_guesses(capsys: pytest.CaptureFixture[str]):
    for verb in (["serve"], ["speculator", "eval"]):
        assert run([*verb, "--help"]) == 0
        text = capsys.readouterr().out
        assert [kind for kind in KINDS if kind not in text] == []


def test_the_command_quotes_folders_with_spaces():
    command = module.serve_command(Path("my model"), SpeculationConfig("eagle", 3, path="a b"))
    assert shlex.split(command)[2] == "my model"
    assert shlex.split(command)[-1] == "a b"
