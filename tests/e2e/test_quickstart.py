"""The quick start as a user runs it: to the end, after Ctrl-C, and with a port that is taken."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from weft.report.run_view import load_run

pytestmark = pytest.mark.e2e

FAST = [
    *("--minutes", "0.25", "--eval-problems", "40", "--num-demonstrations", "300"),
    *("--num-docstrings", "20", "--corpus.max-bytes", "400000", "--vocab-size", "600"),
]


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "weft", "quickstart", "--out", str(out), *FAST, *more]


def test_it_runs_to_the_end_and_writes_everything(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = subprocess.run(
        command(out, "--no-serve"), capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "documentation-shaped nonsense" in " ".join(result.stdout.split())
    summary = json.loads((out / "summary.json").read_text())
    assert 0 < summary["bits_per_byte"] < 8
    for stage in ("before_sft", "after_sft", "after_grpo"):
        score = summary["exact_match"][stage]
        assert score["low"] <= score["value"] <= score["high"]
        assert score["n"] == 40
    # None: no group had a signal at this length, so no update was made.
    assert (summary["max_log_prob_mismatch"] or 0.0) < 1e-5
    assert summary["tokens_per_s"] > 0
    assert all("measured" in figure for figure in summary["predictions"].values())
    run = load_run(out)
    assert run.state == "done"
    assert set(run.parts) == {"pretrain", "sft", "grpo"}
    page = (out / "report.html").read_text()
    assert "<polyline" in page
    assert "http" not in page.replace("http-equiv", "")
    assert (out / "model" / "tokenizer.json").exists()


def test_ctrl_c_and_the_same_command_continue(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(out, "--no-serve"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    metrics = out / "pretrain" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and '"step"' in metrics.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "run the same command again to continue" in " ".join(output.split())
    result = subprocess.run(
        command(out, "--no-serve"), capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Corpus (done before)" in result.stdout
    notes = [event["text"] for event in load_run(out).parts["pretrain"].of_kind("note")]
    assert any("continued from step" in note for note in notes)


def test_a_taken_port_is_told_before_the_work_begins(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = subprocess.run(
            command(tmp_path / "run", "--port", str(port)),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert result.returncode == 2
    assert f"127.0.0.1:{port} is in use" in result.stderr
    assert not (tmp_path / "run" / "corpus").exists()


def test_another_configuration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("minutes = 3.0\n")
    result = subprocess.run(
        command(tmp_path / "run", "--no-serve"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 2
    assert "differs in: minutes" in result.stderr
