"""``weft plan capacity``: the highest request rate that keeps a service level."""

from __future__ import annotations

from weft.cli.plan.inputs import limits_of
from weft.cli.plan.load import WorkloadOptions, fleet_of, step_model
from weft.cli.plan.options import DeploymentOptions, FleetOptions, Output
from weft.cli.plan.output import emit
from weft.core.errors import ConfigError
from weft.plan.answer import Answer, Curve, Item, Plot
from weft.plan.inference.constants import interval_factor
from weft.plan.simulator.capacity import find_capacity
from weft.plan.simulator.events import simulate_fleet
from weft.plan.simulator.fleet import Fleet
from weft.plan.simulator.result import ServiceLevel, Simulation
from weft.plan.workload.arrivals import poisson_arrivals
from weft.plan.workload.source import OpenLoop


def capacity(
    model: str,
    *,
    slo: str = "ttft=1s,tpot=50ms",
    attainment: float = 0.95,
    requests: int = 300,
    price: float = 2.0,
    seed: int = 0,
    service: FleetOptions = FleetOptions(),  # noqa: B008
    deployment: DeploymentOptions = DeploymentOptions(),  # noqa: B008
    workload: WorkloadOptions = WorkloadOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Find the highest Poisson rate at which enough requests keep a service level.

    Parameters
    ----------
    model
        A name from `weft model list`, a folder or a config.json.
    slo
        What a good request keeps.
    attainment
        Share of requests that must be good.
    requests
        Of every simulation.
    price
        Of one device and hour, in any currency.
    seed
        Of arrivals and lengths.
    """
    limits = limits_of(slo)
    if not limits:
        raise ConfigError("no service level is given", fix="write --slo ttft=500ms,tpot=30ms")
    name, step = step_model(model, service.hw, deployment)
    longest = 8 * (workload.isl + workload.osl) + workload.shared + 1
    fleet = fleet_of(step, service, max_context=longest)
    level, tried = ServiceLevel(**limits), {}

    def simulate(rate: float, fleet: Fleet) -> Simulation:
        arrivals = poisson_arrivals(
            workload.content(), num_requests=requests, rate_per_s=rate, seed=seed
        )
        return simulate_fleet(OpenLoop(arrivals), fleet)

    def simulate_at(rate: float) -> Simulation:
        tried[rate] = simulate(rate, fleet)
        return tried[rate]

    def at_pace(factor: float) -> float:
        """Capacity if every step took ``factor`` times as long."""
        paced, guess = fleet.slower(factor), max(found.rate_per_s / factor, 1.0)
        return find_capacity(
            lambda rate: simulate(rate, paced),
            level,
            attainment=attainment,
            first_rate_per_s=guess,
        ).rate_per_s

    found = find_capacity(simulate_at, level, attainment=attainment)
    factor = interval_factor("closed loop tpot")
    low, high = at_pace(factor), at_pace(1.0 / factor)
    shares = {rate: one.attainment(level) for rate, one in sorted(tried.items())}
    devices = step.deployment.cluster.num_devices * (service.replicas + service.prefill)
    per_money = found.rate_per_s * 3600.0 / (devices * price)
    rates, kept = tuple(shares), tuple(shares.values())
    result = Answer(
        title=f"{name}: {service.title}",
        facts=(f"{slo} for {100 * attainment:g} % of requests",),
        items=(
            Item("most requests per second", found.rate_per_s, "", "fit",
                 f"bisection to 2 %; the interval has steps {factor:g} times as long or short",
                 min(low, found.rate_per_s), max(high, found.rate_per_s)),
            Item("requests per unit of money", per_money, "", "fit", f"at {price:g} per hour"),
            Item("simulations", found.num_simulations, ""),
        ),
        plots=(Plot("requests that keep the level", "requests per second", "share",
                    (Curve("", rates, kept),)),),
    )  # fmt: skip
    emit(result, output)
