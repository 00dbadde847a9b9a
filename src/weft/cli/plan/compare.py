"""``weft plan compare``: a finished run beside its prediction."""

from __future__ import annotations

import statistics
import tomllib
from pathlib import Path
from typing import Any

from weft.cli.plan.inputs import model_of
from weft.cli.plan.load import fleet_of, read_trace, step_model
from weft.cli.plan.machine import INTERVAL
from weft.cli.plan.options import DeploymentOptions, FleetOptions, Output
from weft.cli.plan.output import emit
from weft.core.errors import ConfigError, InputFileError
from weft.core.events import read_events
from weft.plan.answer import Answer, Item, Parts, listing, show
from weft.plan.calibration import Calibration, load_calibration
from weft.plan.figure import Figure
from weft.plan.flops import training_flops
from weft.plan.inference.constants import interval_factor
from weft.plan.machine_training import TrainingCase, process_bytes
from weft.plan.memory import Precision
from weft.plan.simulator.events import simulate_fleet
from weft.plan.workload.log import RequestRecord, read_log
from weft.plan.workload.source import OpenLoop

_COLUMNS = ("", "predicted", "80 % interval", "measured", "error", "inside")
_PRECISIONS: dict[str, Precision] = {"fp32": "float32", "bf16": "bfloat16"}


def compare(
    run: Path,
    *,
    model: str | None = None,
    hw: str = "H100",
    calibration: Path | None = None,
    deployment: DeploymentOptions = DeploymentOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Set what a finished run measured beside what is predicted for it.

    Parameters
    ----------
    run
        Folder of a training run, or a weft request log.
    model
        Of a request log: which model was served.
    hw
        Of a request log: devices of the replica.
    calibration
        Of a training run: a file of `weft plan calibrate`; by default this machine's.
    """
    if not run.exists():
        raise InputFileError(f"there is no {run}", fix="give a run folder or a request log")
    if run.is_dir():
        emit(training_answer(run, load_calibration(calibration)), output)
        return
    if model is None:
        raise ConfigError("a request log does not name its model", fix="give --model and --hw")
    emit(_serving(run, model, hw, deployment), output)


def training_answer(run: Path, calibration: Calibration) -> Answer:
    """Return predictions beside what a run of weft's trainer logged.

    Raises:
        InputFileError: the folder holds no training run.
    """
    case, steps = read_run(run)
    prices, hardware = calibration.prices(case.precision), calibration.hardware
    step_s = prices.step_s(case, hardware)
    rate = case.tokens_per_step / step_s
    flops = training_flops(case.spec, [case.sequence_length]) / case.sequence_length
    peak = hardware.matmul_flops[case.precision]
    measured_rate = statistics.median(step["tokens_per_s"] for step in steps)
    within = Figure.within
    rows = [
        _row("tokens per second", within(rate, INTERVAL, "tok/s", "measured"), measured_rate),
        _row("step time", within(step_s, INTERVAL, "s", "measured"),
             case.tokens_per_step / measured_rate),
        _row("MFU", within(flops * rate / peak, INTERVAL, "share", "measured"),
             flops * measured_rate / peak),
    ]  # fmt: skip
    if calibration.memory is not None and "memory_bytes" in steps[-1]:
        memory = calibration.memory
        needed = process_bytes(case, base_bytes=memory.base_bytes, slack=memory.slack)
        figure = within(needed, INTERVAL, "B", "measured")
        rows.append(_row("peak memory", figure, steps[-1]["memory_bytes"]))
    return Answer(
        title=f"{run}: {len(steps)} reports",
        items=(Item("error of the rate", rate / measured_rate - 1.0, "share", "measured"),),
        parts=(Parts("predicted time of a step", "s", prices.parts(case, hardware)),),
        listings=(listing("predicted and measured", _COLUMNS, rows),),
    )


def read_run(run: Path) -> tuple[TrainingCase, list[dict[str, Any]]]:
    """Return how a run trained and its reports of steps.

    Raises:
        InputFileError: the folder holds no training run, or none that got to a report.
    """
    config, metrics = run / "config.toml", run / "metrics.jsonl"
    if not config.exists() or not metrics.exists():
        raise InputFileError(
            f"{run} holds no training run", fix="give the folder that weft train wrote with --out"
        )
    values = tomllib.loads(config.read_text(encoding="utf-8"))
    events = list(read_events(metrics))
    steps = [e for e in events if e["kind"] == "step" and "tokens_per_s" in e]
    if not steps or "tokens_per_step" not in values:
        raise InputFileError(f"{run} reports no training step", fix="compare a finished weft train")
    _, spec = model_of(str(run / "model"))
    tokens = values["tokens_per_step"]
    case = TrainingCase(
        spec,
        values["sequence_length"],
        tokens,
        values.get("micro_batch_tokens", tokens),
        _precision(values.get("precision", "auto"), events),
    )
    return case, steps[1:] or steps  # the first report has the warm-up


def _precision(asked: str, events: list[dict[str, Any]]) -> Precision:
    """The precision that was used; "auto" writes its choice as a note."""
    if asked == "auto":
        notes = [str(e["text"]) for e in events if e["kind"] == "note"]
        chosen = [note.split()[1].rstrip(":") for note in notes if note.startswith("precision ")]
        asked = chosen[-1] if chosen else "fp32"
    return _PRECISIONS.get(asked, "float32")


def _serving(log: Path, model: str, hw: str, deployment: DeploymentOptions) -> Answer:
    records = read_log(log)
    name, step = step_model(model, hw, deployment)
    arrivals = read_trace(log, None)
    longest = max(a.num_prompt_tokens + a.num_output_tokens for a in arrivals) + 1
    fleet = fleet_of(step, FleetOptions(), max_context=longest)
    found = simulate_fleet(OpenLoop(arrivals), fleet)
    rows = []
    for label, measure, values in (
        ("mean TTFT", "ttft_s", _ttft(records)), ("mean TPOT", "tpot_s", _tpot(records)),
    ):  # fmt: skip
        if values:
            factor = interval_factor(f"closed loop {measure[:4]}")
            figure = Figure.within(found.mean(measure), factor, "s", "fit")  # type: ignore[arg-type]
            rows.append(_row(label, figure, statistics.mean(values)))
    title = f"{log}: {len(records)} requests to {name} on {hw}"
    return Answer(title, listings=(listing("predicted and measured", _COLUMNS, rows),))


def _ttft(records: tuple[RequestRecord, ...]) -> list[float]:
    return [r.first_token_s - r.arrival_s for r in records if r.first_token_s is not None]


def _tpot(records: tuple[RequestRecord, ...]) -> list[float]:
    return [
        (r.finish_s - r.first_token_s) / (r.num_output_tokens - 1)
        for r in records
        if r.first_token_s is not None and r.finish_s is not None and r.num_output_tokens > 1
    ]


def _row(name: str, figure: Figure, measured: float) -> tuple[str, ...]:
    interval = f"[{show(figure.low, figure.unit)}, {show(figure.high, figure.unit)}]"
    inside = "yes" if figure.contains(measured) else "no"
    predicted, real = show(figure.value, figure.unit), show(measured, figure.unit)
    return (name, predicted, interval, real, f"{100 * figure.error(measured):+.1f} %", inside)
