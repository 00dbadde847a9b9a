"""Every verb of ``weft plan``: text, JSON, page, formulas, and what goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from weft.cli.main import run
from weft.plan.validate.rows import TRAINING_COLUMNS

TRAIN = ["train", "llama-3.1-8b", "--hw", "H100x8", "--zero", "3", "--gbs", "64"]
VERBS: dict[str, list[str]] = {
    "model": ["model", "deepseek-v3", "--ops", "--hw", "H800", "--phase", "decode"],
    "memory": ["memory", "llama-3.1-70b", "--hw", "H100x64", "--tp", "8", "--pp", "2"],
    "train": TRAIN,
    "infer": ["infer", "llama-3.1-8b", "--hw", "H100", "--concurrency", "16"],
    "search": ["search", "llama-3.2-1b", "--hw", "H100x4", "--gbs", "16"],
    "serve": ["search", "qwen3-8b", "--hw", "H100x2", "--task", "serve", "--slo", "tpot=20ms"],
    "pd": ["pd", "llama-3.1-8b", "--hw", "H100", "--isl", "2048"],
    "simulate": ["simulate", "llama-3.1-8b", "--poisson", "5", "--requests", "20"],
    "capacity": ["capacity", "llama-3.2-1b", "--requests", "20", "--osl", "8"],
    "spec": ["spec", "llama-3.1-70b", "--draft", "llama-3.2-1b", "--hw", "H100x4"],
    "kv": ["kv", "llama-3.1-8b"],
    "comm": ["comm", "--op", "all_reduce", "--hw", "H100x64", "--bytes", "1G"],
    "optimal": ["scaling", "optimal", "--flops", "1e21", "--served", "1T"],
    "hw": ["hw", "H100"],
    "grpo": ["grpo", "qwen3-8b", "--hw", "H100x16", "--zero", "3", "--recompute", "full"],
    "lora": [
        "memory",
        "llama-3.1-70b",
        "--hw",
        "H100",
        "--lora",
        "16",
        "--weight-bits",
        "4",
        "--recompute",
        "full",
    ],
    "devices": ["hw"],
}


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_answers_in_text_data_and_a_page_of_its_own(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run(["plan", *VERBS[verb], "--html", str(page)]) == 0
    text = capsys.readouterr().out
    data = answer(VERBS[verb], capsys)
    assert data["title"] in text
    for name, figure in data["figures"].items():
        assert name in text
        assert figure["grade"] in ("spec", "fit", "measured")
    html = page.read_text()
    assert "<svg" in html or "<table" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert 'src="' not in html


@pytest.mark.parametrize("verb", sorted({words[0] for words in VERBS.values()} - {"scaling"}))
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", verb, "--help"]) == 0
    assert f"weft plan {verb}" in capsys.readouterr().out


def test_explain_prints_the_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *TRAIN, "--explain"]) == 0
    text = capsys.readouterr().out
    assert "= sum of the parts below" in text
    assert "(arXiv:2204.02311)" in text


def test_figures_have_an_interval_around_them(capsys: pytest.CaptureFixture[str]) -> None:
    step = answer(TRAIN, capsys)["figures"]["step time"]
    low, high = step["interval_80"]
    assert low < step["value"] < high


def test_parts_of_a_step_add_up_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    data = answer(TRAIN, capsys)
    total = sum(data["parts"]["time of a step"].values())
    assert total == pytest.approx(data["figures"]["step time"]["value"])


def test_the_right_answers_of_worked_examples(capsys: pytest.CaptureFixture[str]) -> None:
    figures = answer(["model", "llama-3.1-405b"], capsys)["figures"]
    assert figures["parameters"]["value"] == 405_853_388_800
    spec = answer(["spec", "llama-3.1-8b", "--alpha", "0.7", "--gamma", "3"], capsys)["figures"]
    assert round(spec["tokens per step"]["value"], 3) == 2.533
    bus = answer(["comm", "--hw", "H100x8"], capsys)["figures"]["bus factor"]
    assert bus["value"] == 1.75


@pytest.mark.parametrize(
    ("arguments", "message", "fix"),
    [
        (["train", "llama-3.1-8b", "--hw", "H100x8"], "more than the", "ZeRO-3"),
        (["memory", "llama-3.1-405b", "--hw", "H100x8"], "more than the", "devices"),
        (["infer", "llama-3.1-405b", "--hw", "H100"], "per device", "devices"),
        (["infer", "llama-3.1-70x"], "no model", "llama-3.1-70b"),
        (["infer", "llama-3.1-8b", "--hw", "H10"], "no device", "H100-SXM-80GB"),
        (["train", "llama-3.1-8b", "--hw", "H100x8", "--tp", "3"], "does not divide", "divides"),
        (["train", "llama-3.1-8b", "--tokens", "many"], "no count", "2T"),
        (["kv", "llama-3.1-8b", "--via", "string"], "no link", "one of"),
        (["comm", "--op", "all_reduc"], "no collective", "all_reduce"),
        (["search", "llama-3.1-8b", "--task", "serve", "--slo", "ttft=soon"], "no time", "300ms"),
        (["search", "llama-3.1-8b", "--task", "serve", "--slo", "tp=1s"], "level", "ttft"),
        (["simulate", "llama-3.1-8b"], "load is not told", "--poisson"),
        (["simulate", "llama-3.1-8b", "--trace", "none.jsonl"], "cannot be read", None),
        (["train", "llama-3.1-8b", "--weight-bits", "4"], "cannot be trained", "--lora"),
        (["grpo", "qwen3-8b", "--rollout", "16"], "--rollout 16 of 16", "at least one"),
        (["matmul", "--dtype", "float31"], "float31", "float32"),
        (["validate"], "nothing to judge", "--training"),
        (["scaling", "fit", "none.csv"], "cannot be read", None),
        (["train", "llama-3.1-8b", "--hw", "machine.json"], "there is no", "weft plan calibrate"),
        (["compare", "none"], "there is no none", "run folder"),
        (["compare", "log.jsonl"], "name its model", "--model"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "",
)
def test_mistakes_say_what_is_wrong_and_what_to_do(
    arguments: list[str],
    message: str,
    fix: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.jsonl").touch()
    assert run(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert fix is None or fix in error.split("fix:")[-1]


def test_a_bad_line_of_a_trace_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.jsonl"
    good = '{"timestamp": 0, "input_length": 64, "output_length": 8, "hash_ids": [1]}'
    trace.write_text(f'{good}\n{good}\n{{"timestamp": 1}}\n')
    assert run(["plan", "simulate", "llama-3.2-1b", "--trace", str(trace)]) == 2
    assert f"{trace}:3" in capsys.readouterr().err


def test_a_trace_is_served_and_written_for_perfetto(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, perfetto = tmp_path / "azure.csv", tmp_path / "perfetto.json"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,480,10\n2023-11-16 18:17:04.0319600,318,8\n"
    )
    data = answer(
        ["simulate", "llama-3.2-1b", "--trace", str(trace), "--perfetto", str(perfetto)], capsys
    )
    assert data["facts"][0].startswith("2 requests")
    assert json.loads(perfetto.read_text())["traceEvents"]


def test_pools_and_routing_are_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    load = ["--poisson", "20", "--requests", "30", "--shared", "512", "--slo", "ttft=1s"]
    fleet = ["--replicas", "2", "--prefill", "1", "--routing", "prefix"]
    figures = answer(["simulate", "llama-3.2-1b", *load, *fleet], capsys)["figures"]
    assert figures["prompt tokens from the cache"]["value"] > 0.2
    assert figures["kept the service level"]["value"] == 1.0


def test_a_scaling_law_is_fitted_to_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from weft.plan.scaling import CHINCHILLA

    runs = tmp_path / "runs.csv"
    rows = [(n, d) for n in (1e8, 4e8, 1.6e9) for d in (2e9, 8e9, 3.2e10)]
    lines = [f"{n},{d},{CHINCHILLA.loss(n, d)}" for n, d in rows]
    runs.write_text("\n".join(["parameters,tokens,loss", *lines]))
    figures = answer(["scaling", "fit", str(runs), "--resamples", "2"], capsys)["figures"]
    assert figures["E"]["value"] == pytest.approx(1.69, rel=0.02)
    runs.write_text("parameters,tokens,loss\n1,2,x\n")
    assert run(["plan", "scaling", "fit", str(runs)]) == 2
    assert f"{runs}:2" in capsys.readouterr().err


def training_row(**values: str) -> str:
    default = {
        "id": "T1", "source_group": "paper", "task": "pretrain", "model": "GPT",
        "arch": "L24 h2048 a16 f8192 v50257",
        "hardware": "A100-SXM-80GB", "gpus": "8", "dp": "8", "mbs": "4", "gbs": "32",
        "seq_len": "2048", "precision": "bf16", "framework": "x", "metric": "step_time_s",
        "value": "2", "unit": "s", "config_complete": "complete",
    }  # fmt: skip
    return ",".join({**default, **values}.get(name, "") for name in TRAINING_COLUMNS)


def test_a_row_that_cannot_be_read_is_left_out_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "training.csv"
    bad = training_row(id="T2", hardware="Abacus-9")
    file.write_text("\n".join([",".join(TRAINING_COLUMNS), training_row(), bad]))
    data = answer(["validate", "--training", str(file)], capsys)
    assert [row["id"] for row in data["rows"]] == ["T1"]
    assert "Abacus-9" in data["skipped"]["T2"]


def test_planning_never_imports_torch() -> None:
    code = (
        "import sys\nfrom weft.cli.main import run\n"
        "assert run(['plan', 'search', 'llama-3.2-1b', '--hw', 'H100x2']) == 0\n"
        "assert run(['plan', 'simulate', 'llama-3.2-1b', '--closed=2', '--requests=9']) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_help_imports_no_verb() -> None:
    code = (
        "import sys\nfrom weft.cli.main import run\nassert run(['plan', '--help']) == 0\n"
        "assert 'numpy' not in sys.modules and 'weft.plan.answer' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_faster_product_raises_the_peak_of_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from weft.plan.calibration import Calibration, load_calibration, save_calibration
    from weft.spec import HardwareSpec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    hardware = HardwareSpec(
        name="slow", matmul_flops={"float32": 1.0}, memory_bytes=1, memory_bandwidth=1.0
    )
    save_calibration(Calibration(hardware))
    words = ["plan", "matmul", "--sizes", "16,32", "--seconds", "0.2", "--save"]
    assert run(words) == 0
    assert "raised from" in capsys.readouterr().out
    peak = load_calibration().hardware.matmul_flops["float32"]
    assert peak > 1e6
    save_calibration(Calibration(HardwareSpec("fast", {"float32": 1e30}, 1, 1.0)), None)
    assert run(words) == 0
    assert load_calibration().hardware.matmul_flops["float32"] == 1e30
