"""Prices of a machine from its steps, and the calibration file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weft.core.errors import ConfigError, InputFileError
from weft.plan.calibration import Calibration, MachineMemory, load_calibration, save_calibration
from weft.plan.machine_training import (
    QUANTITIES,
    MachinePrices,
    TrainingCase,
    fit_prices,
    ledger_bytes,
    orthogonal_flops,
    process_bytes,
)
from weft.plan.simulator.runner import LinearStepTime
from weft.spec import HardwareSpec, ModelShape

HARDWARE = HardwareSpec(
    "cpu", {"float32": 2e11, "bfloat16": 4e11}, memory_bytes=2**34, memory_bandwidth=3e10
)
PRICES = MachinePrices((1.3, 2.0, 9.0, 7.0, 1.5, 2.5, 2e-4))


def case(dim: int, layers: int, length: int, tokens: int, micro: int, vocab: int) -> TrainingCase:
    heads = max(1, dim // 64)
    shape = ModelShape(dim=dim, num_layers=layers, num_heads=heads, num_kv_heads=1)
    return TrainingCase(shape.build(vocab), length, tokens, micro)


CASES = [
    case(64, 3, 128, 512, 512, 2048), case(128, 2, 512, 2048, 2048, 4096),
    case(256, 4, 64, 512, 256, 1024), case(384, 2, 256, 1024, 1024, 8192),
    case(512, 2, 128, 256, 256, 1024), case(128, 6, 256, 2048, 1024, 1024),
    case(448, 3, 448, 1792, 1792, 2048), case(192, 2, 128, 1024, 1024, 16_384),
    case(320, 8, 64, 128, 128, 512),
]  # fmt: skip


def test_steps_made_from_prices_are_predicted_by_the_prices_found() -> None:
    seconds = [PRICES.step_s(one, HARDWARE) for one in CASES]
    found = fit_prices(CASES, seconds, HARDWARE)
    unseen = case(256, 3, 256, 1024, 512, 4096)
    expected = PRICES.step_s(unseen, HARDWARE)
    assert found.step_s(unseen, HARDWARE) == pytest.approx(expected, rel=0.03)
    assert found.residual < 0.01
    assert min(found.values) >= 0.0


def test_parts_of_a_step_add_up_to_it() -> None:
    parts = PRICES.parts(CASES[0], HARDWARE)
    assert tuple(parts) == QUANTITIES
    assert sum(parts.values()) == pytest.approx(PRICES.step_s(CASES[0], HARDWARE))


def test_twice_the_tokens_in_as_many_passes_take_less_than_twice_the_time() -> None:
    once, twice = case(128, 2, 128, 512, 512, 512), case(128, 2, 128, 1024, 1024, 512)
    assert PRICES.step_s(once, HARDWARE) < PRICES.step_s(twice, HARDWARE)
    assert PRICES.step_s(twice, HARDWARE) < 2 * PRICES.step_s(once, HARDWARE)


def test_newton_schulz_costs_five_rounds_over_every_matrix() -> None:
    spec = ModelShape(dim=8, num_layers=1, num_heads=1, num_kv_heads=1, ffn_dim=16).build(32)

    def rounds(short: int, long: int) -> int:
        return 5 * (2 * short * short * long + 2 * short**3 + 2 * short * short * long)

    # q, k and v as one product of 24 columns, the output, gate and up together, down.
    merged = rounds(8, 24) + rounds(8, 8) + rounds(8, 32) + rounds(8, 16)
    assert orthogonal_flops(spec) == merged


def test_a_process_takes_its_base_and_the_ledger() -> None:
    one = CASES[0]
    assert process_bytes(one, base_bytes=100.0, slack=1.5) == 100.0 + 1.5 * ledger_bytes(one)


def test_steps_without_time_are_refused() -> None:
    with pytest.raises(ConfigError, match="no prices"):
        fit_prices([], [], HARDWARE)
    with pytest.raises(ConfigError, match="no prices"):
        fit_prices(CASES[:1], [0.0], HARDWARE)


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    saved = Calibration(
        HARDWARE, {"float32": PRICES}, MachineMemory(3 * 10**8, 1.2),
        {"tiny": LinearStepTime(1e-3, 1e-5, 1e-7)}, {"processor": "x"},
    )  # fmt: skip
    path = save_calibration(saved, tmp_path / "deep" / "machine.json")
    assert load_calibration(path) == saved


def test_a_missing_or_foreign_calibration_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="weft plan calibrate"):
        load_calibration(tmp_path / "none.json")
    foreign = tmp_path / "foreign.json"
    foreign.write_text(json.dumps({"hardware": {"nonsense": 1}}))
    with pytest.raises(InputFileError, match="no calibration"):
        load_calibration(foreign)


def test_an_unmeasured_precision_names_the_measured_ones() -> None:
    with pytest.raises(ConfigError, match="float32"):
        Calibration(HARDWARE, {"float32": PRICES}).prices("bfloat16")
