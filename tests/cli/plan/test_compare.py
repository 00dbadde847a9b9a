"""A finished run beside its prediction, and plans on a calibrated machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weft.cli.main import run
from weft.plan.calibration import Calibration, MachineMemory, save_calibration
from weft.plan.machine_training import MachinePrices, TrainingCase, process_bytes
from weft.plan.workload.log import RequestRecord, write_log
from weft.spec import HardwareSpec

HARDWARE = HardwareSpec("cpu", {"float32": 2e11}, memory_bytes=2**34, memory_bandwidth=3e10)
PRICES = MachinePrices((1.3, 2.0, 9.0, 7.0, 1.5, 2.5, 2e-4))
CONFIG = {
    "model_type": "llama", "vocab_size": 1024, "hidden_size": 128, "intermediate_size": 344,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    calibration = Calibration(HARDWARE, {"float32": PRICES}, MachineMemory(3 * 10**8, 1.2))
    return save_calibration(calibration, tmp_path / "machine.json")


def finished_run(folder: Path, tokens_per_s: float) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps(CONFIG))
    (folder / "config.toml").write_text(
        'sequence_length = 128\ntokens_per_step = 512\nprecision = "auto"\n'
    )
    events: list[dict[str, object]] = [
        {"kind": "note", "t": 0.0, "text": "precision fp32: measured faster"}
    ]
    for rate in (1.0, tokens_per_s, tokens_per_s):  # the first report has the warm-up
        events.append({"kind": "step", "t": 1.0, "tokens_per_s": rate, "memory_bytes": 4 * 10**8})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return folder


def case() -> TrainingCase:
    from weft.spec.families import spec_from_hf

    return TrainingCase(spec_from_hf(CONFIG), 128, 512, 512)


def test_a_run_as_fast_as_predicted_has_no_error(
    tmp_path: Path, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = 512 / PRICES.step_s(case(), HARDWARE)
    folder = finished_run(tmp_path / "run", rate)
    assert run(["plan", "compare", str(folder), "--calibration", str(machine), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["figures"]["error of the rate"]["value"] == pytest.approx(0.0, abs=1e-6)
    rows = {row[""]: row for row in data["tables"]["predicted and measured"]}
    assert rows["tokens per second"]["inside"] == "yes"
    needed = process_bytes(case(), base_bytes=3 * 10**8, slack=1.2)
    inside = needed / 1.1 <= 4 * 10**8 <= needed * 1.1
    assert rows["peak memory"]["inside"] == ("yes" if inside else "no")


def test_a_run_half_as_fast_is_outside_the_interval(
    tmp_path: Path, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run(tmp_path / "run", 256 / PRICES.step_s(case(), HARDWARE))
    assert run(["plan", "compare", str(folder), "--calibration", str(machine)]) == 0
    assert "+100.0 %  no" in capsys.readouterr().out


def test_a_folder_without_a_run_says_so(
    tmp_path: Path, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "compare", str(tmp_path), "--calibration", str(machine)]) == 2
    assert "holds no training run" in capsys.readouterr().err


def test_a_request_log_is_simulated_on_the_device_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "requests.jsonl"
    records = [RequestRecord(0.1 * i, 64, 8, 0.1 * i + 0.05, 0.1 * i + 0.1) for i in range(5)]
    write_log(log, records)
    assert run(["plan", "compare", str(log), "--model", "llama-3.2-1b", "--hw", "H100"]) == 0
    text = capsys.readouterr().out
    assert "mean TTFT" in text
    assert "50 ms" in text


def test_training_on_a_calibrated_machine_is_planned_by_its_prices(
    tmp_path: Path, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    arguments = ["--hw", str(machine), "--seq", "128", "--mbs", "4", "--json"]
    assert run(["plan", "train", str(tmp_path), *arguments]) == 0
    figure = json.loads(capsys.readouterr().out)["figures"]["step time"]
    assert figure["grade"] == "measured"
    assert figure["value"] == pytest.approx(PRICES.step_s(case(), HARDWARE))
    assert run(["plan", "train", "llama-3.1-8b", "--hw", str(machine)]) == 2
    assert "more than the 16.0 GiB there" in capsys.readouterr().err
