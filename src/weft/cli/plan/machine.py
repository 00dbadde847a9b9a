"""Training on the machine at hand, by what ``weft plan calibrate`` measured."""

from __future__ import annotations

from weft.cli.plan.options import LayoutOptions
from weft.core.console import format_bytes
from weft.core.errors import ResourceError
from weft.plan.answer import Answer, Item, Parts
from weft.plan.calibration import Calibration
from weft.plan.figure import Figure
from weft.plan.flops import training_flops
from weft.plan.machine_training import MachinePrices, TrainingCase, process_bytes
from weft.plan.memory import Precision
from weft.spec import ModelSpec

# Of step times of unseen configurations on calibrated machines (benchmarks/plan_cpu.py).
INTERVAL = 1.1


def train_here(
    name: str,
    spec: ModelSpec,
    layout: LayoutOptions,
    num_tokens: float,
    calibration: Calibration,
) -> Answer:
    """Return what training takes on this machine, one device, weft's own trainer.

    Raises:
        ResourceError: it does not fit; says by how much and what would.
        ConfigError: the precision was not measured.
    """
    precision: Precision = "bfloat16" if layout.dtype == "bfloat16" else "float32"
    if precision not in calibration.training:
        precision = "float32"
    case = TrainingCase(
        spec,
        layout.seq,
        (layout.gbs or layout.mbs) * layout.seq,
        layout.mbs * layout.seq,
        precision,
    )
    prices = calibration.prices(precision)
    needed = _memory(case, calibration)
    available = calibration.hardware.memory_bytes
    if needed > available:
        raise ResourceError(
            f"training needs {format_bytes(needed)}, {format_bytes(needed - available)} more than "
            f"the {format_bytes(available)} there",
            fix="lower --mbs or --seq"
            if layout.mbs > 1
            else "lower --seq or choose a smaller model",
        )
    return Answer(
        title=f"{name} on this machine, {precision}",
        facts=(f"{case.tokens_per_step} tokens per step, {case.micro_batch_tokens} at once",),
        items=_items(case, prices, calibration, needed, num_tokens),
        parts=(Parts("time of a step", "s", prices.parts(case, calibration.hardware)),),
    )


def _memory(case: TrainingCase, calibration: Calibration) -> float:
    memory = calibration.memory
    if memory is None:
        return process_bytes(case, base_bytes=0.0)
    return process_bytes(case, base_bytes=memory.base_bytes, slack=memory.slack)


def _items(
    case: TrainingCase,
    prices: MachinePrices,
    calibration: Calibration,
    needed: float,
    num_tokens: float,
) -> tuple[Item, ...]:
    step_s = prices.step_s(case, calibration.hardware)
    rate = case.tokens_per_step / step_s
    flops = training_flops(case.spec, [case.sequence_length]) / case.sequence_length * rate
    peak = calibration.hardware.matmul_flops[case.precision]
    within = Figure.within
    return (
        Item.of("step time", within(step_s, INTERVAL, "s", "measured"), "prices x quantities"),
        Item.of("rate", within(rate, INTERVAL, "tok/s", "measured"), "tokens per step / step time"),
        Item("MFU (causal)", flops / peak, "share", "measured", "of the measured matmul peak"),
        Item("duration", num_tokens / rate, "s", "measured", f"{num_tokens:.3g} tokens / rate"),
        Item.of("peak memory", within(needed, INTERVAL, "B", "measured"), "empty + ledger x slack"),
    )
