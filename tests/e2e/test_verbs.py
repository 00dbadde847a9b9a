"""Every verb once, in the order a user meets them, on a tiny model."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

TINY = ["--model.dim", "32", "--model.num-layers", "1", "--model.num-heads", "2",
        "--model.num-kv-heads", "1", "--sequence-length", "64", "--tokens-per-step", "256",
        "--minutes", "none"]  # fmt: skip


def weft(*arguments: str, expect: int = 0) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "weft", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == expect, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a tokenizer and a trained model made by the verbs themselves."""
    folder = tmp_path_factory.mktemp("verbs")
    corpus, tokenizer, base = folder / "corpus", folder / "tokenizer", folder / "base"
    text = weft("data", "build", "stdlib", "--out", str(corpus), "--max-bytes", "600k")
    assert "kept: train" in text
    weft("tokenizer", "train", str(corpus), "--vocab-size", "400", "--out", str(tokenizer))
    weft("train", "--corpus", str(corpus), "--tokenizer", str(tokenizer), "--out", str(base),
         "--steps", "4", *TINY)  # fmt: skip
    return folder


def test_tokenizer_verbs(home: Path) -> None:
    assert "bytes per token" in weft("tokenizer", "encode", str(home / "tokenizer"), "def f(x):")
    assert "<|endoftext|> = 0" in weft("tokenizer", "inspect", str(home / "tokenizer"))


def test_sft_grpo_eval_report(home: Path) -> None:
    base, sft, grpo = home / "base/model", home / "sft", home / "grpo"
    weft("sft", str(base), "--tasks", "addition:9", "--examples-per-task", "40", "--epochs",
         "none", "--steps", "2", "--sequence-length", "64", "--tokens-per-step", "256",
         "--out", str(sft))  # fmt: skip
    text = weft("grpo", str(sft / "model"), "--difficulty", "9", "--steps", "2",
                "--prompts-per-step", "4", "--group-size", "4", "--out", str(grpo))  # fmt: skip
    assert "trainer and engine" in " ".join(text.split())
    text = weft("eval", str(grpo / "model"), "--tasks", "addition", "--num-items", "20",
                "--corpus", str(home / "corpus"), "--max-tokens", "2000",
                "--out", str(home / "eval"))  # fmt: skip
    assert "bits_per_byte" in text.replace(" ", "_")
    results = json.loads((home / "eval" / "eval.json").read_text())["results"]
    assert {row["task"] for row in results} >= {"addition"}
    assert "report.html" in weft("report", str(sft))


def test_generate_chat_convert(home: Path) -> None:
    model = str(home / "base/model")
    first = weft("generate", model, "def ", "--max-tokens", "8", "--seed", "3")
    assert first == weft("generate", model, "def ", "--max-tokens", "8", "--seed", "3")
    record = json.loads(weft("generate", model, "def ", "--max-tokens", "4", "--json"))
    assert len(record["tokens"]) == len(record["logprobs"]) <= 4
    weft("chat", model, "Hello", "--max-tokens", "4", "--seed", "1")
    assert "wrote" in weft("convert", model, str(home / "half"), "--dtype", "bfloat16")
    weft("generate", str(home / "half"), "def ", "--max-tokens", "4")


def test_a_prompt_longer_than_the_context_and_a_foreign_tokenizer_are_refused(home: Path) -> None:
    model = home / "base/model"
    assert "context" in weft("generate", str(model), "word " * 5000, expect=2)
    other, broken = home / "other", home / "broken"
    weft("tokenizer", "train", str(home / "corpus"), "--vocab-size", "900", "--out", str(other))
    broken.mkdir()
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        (broken / name).write_bytes((model / name).read_bytes())
    for file in other.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    assert "the model was trained with" in weft("generate", str(broken), "def ", expect=2)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    assert "truncated" in weft("convert", str(broken), str(home / "never"), expect=2)


def test_a_corrupted_shard_is_named(home: Path) -> None:
    shards = home / "base" / "shards" / "train"
    data = next(file for file in shards.iterdir() if file.suffix != ".json")
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])
    try:
        text = weft("train", "--corpus", str(home / "corpus"), "--tokenizer",
                    str(home / "tokenizer"), "--out", str(home / "base"), "--steps", "4",
                    *TINY, expect=2)  # fmt: skip
        assert data.name in text
        assert "fix: " in text
    finally:
        data.write_bytes(whole)


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    text = weft("data", "build", str(tmp_path / "empty"), "--out", str(tmp_path / "c"), expect=2)
    assert "fix: " in text


def test_serve_answers_and_drains(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "weft", "serve", str(home / "base/model"), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=None,
    )
    try:
        url = _url(process)
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            assert answer.status == 200
        body = json.dumps({"model": "model", "prompt": "def ", "max_tokens": 3}).encode()
        request = urllib.request.Request(
            f"{url}/v1/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] <= 3
        body = json.dumps({"model": "model", "prompt": "a " * 9000}).encode()
        request = urllib.request.Request(
            f"{url}/v1/completions", body, {"Content-Type": "application/json"}
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=30)
        assert caught.value.code == 400
        assert "context" in caught.value.read().decode()
        caught.value.close()
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def _url(process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + 60
    assert process.stdout is not None
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        if found := re.search(r"http://[\d.:]+", line):
            return found.group()
    raise AssertionError("the server did not start")
