"""``weft plan simulate``: a workload in virtual time, with the engine's own scheduler."""

from __future__ import annotations

from pathlib import Path

from weft.cli.plan.inputs import limits_of
from weft.cli.plan.load import WorkloadOptions, fleet_of, read_trace, step_model
from weft.cli.plan.options import DeploymentOptions, FleetOptions, Output
from weft.cli.plan.output import emit
from weft.core.errors import ConfigError
from weft.plan.answer import Answer, Curve, Item, Listing, Plot, listing, seconds
from weft.plan.figure import Figure
from weft.plan.inference.constants import interval_factor
from weft.plan.simulator.chrome import write_chrome_trace
from weft.plan.simulator.events import simulate_fleet
from weft.plan.simulator.result import Measure, ServiceLevel, Simulation
from weft.plan.simulator.series import queue_series
from weft.plan.workload.arrivals import gamma_arrivals
from weft.plan.workload.source import ClosedLoop, OpenLoop, Workload

_MEASURES: tuple[tuple[str, Measure], ...] = (
    ("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("latency", "latency_s"),
)  # fmt: skip
_PERCENTS = (50, 90, 95, 99)
_NUM_POINTS = 200


def simulate(
    model: str,
    *,
    trace: Path | None = None,
    poisson: float | None = None,
    burst: float = 1.0,
    closed: int | None = None,
    requests: int = 1000,
    slo: str = "",
    seed: int = 0,
    perfetto: Path | None = None,
    service: FleetOptions = FleetOptions(),  # noqa: B008
    deployment: DeploymentOptions = DeploymentOptions(),  # noqa: B008
    workload: WorkloadOptions = WorkloadOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Serve a workload in virtual time: percentiles, goodput, cache hits, queues.

    Parameters
    ----------
    model
        A name from `weft model list`, a folder or a config.json.
    trace
        A Mooncake, Azure or weft request log.
    poisson
        Requests per second that arrive independently.
    burst
        Standard deviation of a gap over its mean; 1 is Poisson, above is bursty.
    closed
        Clients that wait for their answer before they ask again.
    requests
        How many; of a trace the first so many.
    slo
        What a good request keeps, such as ttft=500ms,tpot=30ms.
    seed
        Of arrivals and lengths.
    perfetto
        Also write a trace for Perfetto.
    """
    load = _load(trace, poisson, burst, closed, requests, seed, workload)
    name, step = step_model(model, service.hw, deployment)
    context = _longest(load, workload)
    fleet = fleet_of(step, service, max_context=context)
    result = simulate_fleet(load, fleet, keep_steps=True)
    if perfetto is not None:
        write_chrome_trace(perfetto, result)
    limits = limits_of(slo)
    level = ServiceLevel(**limits) if limits else None
    emit(answer(f"{name}: {service.title}", result, level), output)


def answer(title: str, result: Simulation, level: ServiceLevel | None) -> Answer:
    """Return what a simulation found."""
    stats, counters = result.stats, result.stats.counters
    virtual = seconds(result.duration_s)
    good: tuple[Item, ...] = ()
    if level is not None:
        good = (
            Item("kept the service level", result.attainment(level), "share", "fit"),
            Item("goodput", result.goodput_per_s(level), "requests/s", "fit"),
        )
    return Answer(
        title=title,
        facts=(f"{len(result.requests):,} requests in {virtual} of virtual time",),
        items=(
            Item("output tokens per second", result.tokens_per_s, "tok/s", "fit"),
            _mean("mean TTFT", result, "ttft_s", "arrival to first token"),
            _mean("mean TPOT", result, "tpot_s", "per token after the first"),
            *good,
            Item("prompt tokens from the cache", stats.prefix_hit_rate, "share", "fit"),
            Item("preemptions", counters.num_preemptions, "", "fit"),
            Item("refused", len(result.requests) - len(result.served), "", "fit"),
            Item("busiest replica over mean", result.max_over_mean_load, "x", "fit"),
        ),
        listings=(_percentiles(result),),
        plots=_plots(result),
    )  # fmt: skip


def _mean(name: str, result: Simulation, measure: Measure, formula: str) -> Item:
    """Return a mean with the interval that measured closed loops have shown."""
    factor = interval_factor(f"closed loop {measure.removesuffix('_s')}")
    return Item.of(name, Figure.within(result.mean(measure), factor, "s", "fit"), formula)


def _percentiles(result: Simulation) -> Listing:
    rows = [
        (name, seconds(result.mean(measure)),
         *(seconds(result.percentile(measure, percent)) for percent in _PERCENTS))
        for name, measure in _MEASURES
    ]  # fmt: skip
    return listing("latencies", ("", "mean", *(f"p{p}" for p in _PERCENTS)), rows)


def _plots(result: Simulation) -> tuple[Plot, ...]:
    series = queue_series(result, num_points=_NUM_POINTS)
    times = tuple(series.time_s.tolist())

    def curve(name: str, values: object) -> Curve:
        return Curve(name, times, tuple(float(value) for value in values))  # type: ignore[attr-defined]

    queues = (curve("running", series.num_running), curve("waiting", series.num_waiting))
    return (
        Plot("requests over time", "seconds", "requests", queues),
        Plot("cache in use", "seconds", "share", (curve("", series.kv_usage),)),
    )


def _load(
    trace: Path | None,
    poisson: float | None,
    burst: float,
    closed: int | None,
    requests: int,
    seed: int,
    workload: WorkloadOptions,
) -> Workload:
    if (trace is not None) + (poisson is not None) + (closed is not None) != 1:
        raise ConfigError(
            "the load is not told", fix="give one of --trace FILE, --poisson RATE, --closed CLIENTS"
        )
    if trace is not None:
        return OpenLoop(read_trace(trace, requests))
    if closed is not None:
        return ClosedLoop(workload.content(), closed, requests, seed=seed)
    arrivals = gamma_arrivals(
        workload.content(),
        num_requests=requests,
        rate_per_s=poisson or 0.0,
        variation=burst,
        seed=seed,
    )
    return OpenLoop(arrivals)


def _longest(load: Workload, workload: WorkloadOptions) -> int:
    if isinstance(load, OpenLoop):
        return max(a.num_prompt_tokens + a.num_output_tokens for a in load.arrivals) + 1
    factor = 1 if workload.spread == 0.0 else 8
    return factor * (workload.isl + workload.osl) + workload.shared + 1
