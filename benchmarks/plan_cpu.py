"""How well are weft's own training steps on this CPU predicted after calibration?

Calibrates the machine (``weft.cli.plan.measure``), then trains six configurations the calibration
never saw and prints predicted and measured step time and peak memory. Processor time of one thread
is the steadier measure on a machine shared with others; ``--clock wall`` takes the other.

    python benchmarks/plan_cpu.py --precisions float32 --json plan_cpu.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from weft.cli.plan.measure import STEPS, make_case, measure_memory, process_peak, step_seconds
from weft.ops.machine import keep_freed_memory, measure_peaks
from weft.plan.calibration import MachineMemory
from weft.plan.machine_training import TrainingCase, fit_prices, process_bytes
from weft.plan.memory import Precision
from weft.spec import HardwareSpec

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# Width, layers, sequence, tokens per step, per micro-batch, vocabulary; none is a calibration step.
UNSEEN = (
    (128, 4, 128, 1024, 1024, 4096),
    (256, 2, 256, 1024, 1024, 2048),
    (320, 5, 128, 1024, 512, 4096),
    (384, 4, 256, 1024, 1024, 2048),
    (192, 6, 192, 768, 768, 8192),
    (512, 3, 256, 1024, 1024, 4096),
)


def rows(
    precision: Precision,
    hardware: HardwareSpec,
    memory: MachineMemory,
    arguments: argparse.Namespace,
) -> list[dict[str, float | str]]:
    known = [make_case(numbers, precision) for numbers in STEPS]
    unseen = [make_case(numbers, precision) for numbers in UNSEEN]
    clock = CLOCKS[arguments.clock]
    # Known and unseen steps in the same rounds, so that whatever else runs hits all alike.
    seconds = step_seconds([*known, *unseen], rounds=arguments.rounds, clock=clock)
    prices = fit_prices(known, seconds[: len(known)], hardware)
    print(
        f"{precision}: residual on calibration steps {prices.residual:.1%}, prices {prices.values}"
    )
    found = []
    for numbers, case, measured in zip(UNSEEN, unseen, seconds[len(known) :], strict=True):
        predicted = prices.step_s(case, hardware)
        found.append(
            {
                "config": " ".join(map(str, numbers)),
                "precision": precision,
                "predicted_s": predicted,
                "measured_s": measured,
                "error": predicted / measured - 1.0,
                **_memory(case, memory),
            }
        )
    return found


def _memory(case: TrainingCase, memory: MachineMemory) -> dict[str, float]:
    predicted = process_bytes(case, base_bytes=memory.base_bytes, slack=memory.slack)
    measured = process_peak(case)
    return {
        "predicted_bytes": predicted,
        "measured_bytes": measured,
        "memory_error": predicted / measured - 1.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precisions", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    hardware = measure_peaks(4.0)
    found: list[dict[str, float | str]] = []
    for precision in arguments.precisions.split(","):
        found += rows(precision, hardware, measure_memory(precision), arguments)
    for row in found:
        print(
            f"{row['config']:34} {row['precision']:9} step {1e3 * float(row['predicted_s']):7.1f} "
            f"against {1e3 * float(row['measured_s']):7.1f} ms {float(row['error']):+6.1%}   mem "
            f"{float(row['predicted_bytes']) / 2**20:6.0f} against "
            f"{float(row['measured_bytes']) / 2**20:6.0f} MiB {float(row['memory_error']):+6.1%}"
        )
    for name in ("error", "memory_error"):
        sizes = [abs(float(row[name])) for row in found]
        print(f"{name}: median {statistics.median(sizes):.1%}, largest {max(sizes):.1%}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
