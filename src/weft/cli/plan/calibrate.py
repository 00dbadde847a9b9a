"""``weft plan calibrate``: measure this machine in at most a minute."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from weft.cli.plan.options import Output
from weft.cli.plan.output import emit
from weft.core.environment import cpu_name
from weft.plan.answer import Answer, Item, Listing, listing, seconds
from weft.plan.calibration import Calibration, default_path, save_calibration
from weft.plan.machine_training import MachinePrices, TrainingCase, fit_prices
from weft.plan.memory import Precision
from weft.plan.simulator.runner import LinearStepTime
from weft.spec import HardwareSpec

_PEAKS_S = 4.0
_BUDGET_S = 55.0


def calibrate(
    *,
    quick: bool = False,
    model: Path | None = None,
    out: Path | None = None,
    output: Output = Output(),  # noqa: B008
) -> None:
    """Measure peaks, training steps, memory and, of a model, serving steps of this machine.

    Plans read the result as `--hw this-machine`.

    Parameters
    ----------
    quick
        Only float32 and one round: about a third of the time.
    model
        Folder of a model whose serving steps are measured too.
    out
        File to write; by default one in the user's cache.
    """
    from weft.cli.plan.measure import measure_memory
    from weft.ops.machine import configure_threads, keep_freed_memory, measure_peaks

    start_s = time.perf_counter()
    configure_threads()
    memory = measure_memory()  # first: a child's peak must not include this process
    keep_freed_memory()
    hardware = measure_peaks(_PEAKS_S / (2 if quick else 1))
    precisions: tuple[Precision, ...] = ("float32",) if quick else ("float32", "bfloat16")
    training: dict[str, MachinePrices] = {}
    tables, took_s = [], 0.0
    for precision in precisions:
        begin_s = time.perf_counter()
        # Half-width products take about half the time.
        if training and begin_s - start_s + took_s / 2 > _BUDGET_S:
            break
        cases, measured = _steps(precision, rounds=1 if quick else 2)
        training[precision] = fit_prices(cases, measured, hardware)
        took_s = time.perf_counter() - begin_s
        tables.append(_table(precision, cases, measured, training[precision], hardware))
    serving = {} if model is None else {model.name: _serving(model)}
    duration_s = time.perf_counter() - start_s
    result = Calibration(
        hardware, training, memory, serving, {"processor": cpu_name(), "duration_s": duration_s}
    )
    path = save_calibration(result, out)
    emit(_answer(result, path, duration_s, tuple(tables)), output)


def _steps(precision: Precision, rounds: int) -> tuple[list[TrainingCase], list[float]]:
    from weft.cli.plan.measure import STEPS, make_case, step_seconds

    cases = [make_case(numbers, precision) for numbers in STEPS]
    return cases, step_seconds(cases, rounds=rounds)


def _serving(folder: Path) -> LinearStepTime:
    """Serve a burst with the engine and learn what its steps take."""
    from weft.checkpoint.hf import load_model
    from weft.cli.plan.measure_serving import run_engine
    from weft.engine.config import EngineConfig
    from weft.plan.simulator.replay import fit_step_time
    from weft.plan.workload.arrivals import Content, gamma_arrivals
    from weft.plan.workload.lengths import UniformLength
    from weft.sched.loop import MonotonicClock

    content = Content(UniformLength(16, 128), UniformLength(8, 48))
    arrivals = gamma_arrivals(content, num_requests=40, rate_per_s=8.0, variation=2.0, seed=0)
    return fit_step_time(
        run_engine(load_model(folder), EngineConfig(), arrivals, MonotonicClock()).journal
    )


def _table(
    precision: str,
    cases: list[TrainingCase],
    measured: list[float],
    prices: MachinePrices,
    hardware: HardwareSpec,
) -> Listing:
    rows = []
    for case, real_s in zip(cases, measured, strict=True):
        fitted_s = prices.step_s(case, hardware)
        shape = f"{case.spec.num_layers} x {case.spec.dim}"
        rows.append(
            (shape, case.sequence_length, case.tokens_per_step, case.spec.vocab_size,
             seconds(real_s), seconds(fitted_s), f"{100 * (fitted_s / real_s - 1):+.1f} %")
        )  # fmt: skip
    columns = ("layers x width", "seq", "tokens", "vocabulary", "measured", "fitted", "residual")
    return listing(f"training steps in {precision}", columns, rows)


def _answer(
    result: Calibration, path: Path, duration_s: float, tables: tuple[Listing, ...]
) -> Answer:
    return Answer(
        title=f"this machine: {cpu_name()}",
        facts=(f"{result.hardware.num_threads} threads, written to {path}",),
        items=tuple(_items(result, duration_s)),
        listings=tables,
        notes=("plans read it as --hw this-machine"
               + ("" if path == default_path() else f" after moving it, or as --hw {path}"),),
    )  # fmt: skip


def _items(result: Calibration, duration_s: float) -> Iterator[Item]:
    hardware = result.hardware
    for dtype, rate in hardware.matmul_flops.items():
        yield Item(f"{dtype} matmul peak", rate, "FLOP/s", "measured", "best of several products")
    yield Item(
        "memory bandwidth", hardware.memory_bandwidth, "B/s", "measured", "a sum over 256 MiB"
    )
    for precision, prices in result.training.items():
        yield Item(f"training residual, {precision}", prices.residual, "share", "measured",
                   "median over the steps below")  # fmt: skip
    if result.memory is not None:
        base = result.memory.base_bytes
        yield Item("empty training process", base, "B", "measured", "libraries and code")
    for name, step in result.serving.items():
        yield Item(f"serving step of {name}", step.base_s, "s", "measured",
                   "plus a price per token and per token of context")  # fmt: skip
    yield Item("took", duration_s, "s", "measured")
