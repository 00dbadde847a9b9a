"""The highest rate that keeps a service level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.plan.simulator.result import ServiceLevel, Simulation


@dataclass(frozen=True)
class Capacity:
    """How much load a deployment bears.

    Attributes:
        rate_per_s: The highest rate tried that kept the level; 0 if none did.
        failed_rate_per_s: The lowest rate tried that did not; infinite if all did.
        num_simulations: How many were run.
    """

    rate_per_s: float
    failed_rate_per_s: float
    num_simulations: int


def find_capacity(
    simulate_at: Callable[[float], Simulation],
    level: ServiceLevel,
    *,
    attainment: float = 0.99,
    first_rate_per_s: float = 1.0,
    tolerance: float = 0.02,
    max_simulations: int = 40,
) -> Capacity:
    """Search the highest rate at which enough requests keep the level.

    Doubles or halves until one rate keeps it and another does not, then bisects.

    Args:
        simulate_at: Simulates the workload at a rate in requests per second.
        level: What a request must keep.
        attainment: Share of requests that must keep it.
        first_rate_per_s: Where to begin.
        tolerance: Stop when the two rates are so close, relative.
        max_simulations: Stop after so many in any case.
    """
    if not 0.0 < attainment <= 1.0 or min(first_rate_per_s, tolerance) <= 0.0:
        raise ConfigError(
            f"attainment {attainment}, first rate {first_rate_per_s}, tolerance {tolerance}",
            fix="use an attainment in (0, 1], a rate and a tolerance above 0",
        )
    kept, failed, rate = 0.0, float("inf"), first_rate_per_s
    num_simulations = 0
    while num_simulations < max_simulations and failed > kept * (1.0 + tolerance):
        num_simulations += 1
        if simulate_at(rate).attainment(level) >= attainment:
            kept = rate
        else:
            failed = rate
        rate = _next_rate(kept, failed)
    return Capacity(kept, failed, num_simulations)


def _next_rate(kept: float, failed: float) -> float:
    if failed == float("inf"):
        return 2.0 * kept
    return failed / 2.0 if kept == 0.0 else (kept + failed) / 2.0
