"""``weft plan matmul``: the highest matrix-product rate of this machine, over many shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from weft.cli.plan.inputs import count_of
from weft.cli.plan.options import Output
from weft.cli.plan.output import emit
from weft.core.environment import cpu_name
from weft.core.errors import ConfigError, did_you_mean
from weft.plan.answer import Answer, Curve, Item, Plot, listing, scaled
from weft.plan.calibration import load_calibration, save_calibration

_DTYPES = ("float32", "bfloat16", "float16")
_NUM_SHOWN = 10


def matmul(
    *,
    dtype: str = "float32",
    device: str = "cpu",
    sizes: str = "128,192,256,384,512,768,1024,1536,2048",
    seconds: float = 20.0,
    save: bool = False,
    output: Output = Output(),  # noqa: B008
) -> None:
    """Search the shape of the fastest matrix product (maximum achievable matmul FLOPS).

    Parameters
    ----------
    dtype
        Element type: float32, bfloat16, float16.
    device
        Where: cpu or cuda.
    sizes
        Sizes that rows, columns and inner width are taken from.
    seconds
        How long to search.
    save
        Raise the peak in this machine's calibration, so that plans use it.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype is {dtype!r}", fix=did_you_mean(dtype, _DTYPES))
    if seconds <= 0.0:
        raise ConfigError(f"seconds is {seconds}", fix="search for at least a second")
    import torch

    from weft.ops.machine import configure_threads
    from weft.ops.matmul_sweep import Trial, matmul_rate, sweep

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("torch sees no CUDA device", fix="use --device cpu")
    threads = configure_threads()
    ladder = sorted({int(count_of(part)) for part in sizes.split(",")})
    trials: list[Trial] = list(
        sweep(ladder, matmul_rate(getattr(torch, dtype), device), budget_s=seconds)
    )
    last = trials[-1]
    saved = (_save(dtype, last.best),) if save else ()
    ranked = sorted(trials, key=lambda trial: -trial.flops)[:_NUM_SHOWN]
    rows = [(" x ".join(map(str, one.shape)), scaled(one.flops, "FLOP/s")) for one in ranked]
    so_far = Curve(
        "best", tuple(map(float, range(1, len(trials) + 1))), tuple(one.best for one in trials)
    )
    name = cpu_name() if device == "cpu" else torch.cuda.get_device_name()
    emit(
        Answer(
            title=f"{dtype} products on {name}",
            facts=(f"{len(trials)} shapes tried, {threads} threads", *saved),
            items=(
                Item("best rate", last.best, "FLOP/s", "measured", "2 M N K / shortest run"),
                Item("of the shape", " x ".join(map(str, last.best_shape)), "", "measured"),
            ),
            listings=(listing("fastest shapes", ("M x N x K", "rate"), rows),),
            plots=(Plot("best rate so far", "shapes tried", "FLOP/s", (so_far,)),),
            data={"trials": [{"shape": one.shape, "flops": one.flops} for one in trials]},
        ),
        output,
    )


def _save(dtype: str, flops: float) -> str:
    """Raise the peak of a type in the calibration; a limit never falls."""
    calibration = load_calibration()
    before = calibration.hardware.matmul_flops.get(dtype, 0.0)
    if flops <= before:
        return f"the calibration keeps its {scaled(before, 'FLOP/s')}"
    rates = {**calibration.hardware.matmul_flops, dtype: flops}
    path: Path = save_calibration(
        replace(calibration, hardware=replace(calibration.hardware, matmul_flops=rates))
    )
    return f"raised from {scaled(before, 'FLOP/s')} in {path}"
