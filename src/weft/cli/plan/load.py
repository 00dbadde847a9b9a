"""What simulations share: a fleet of replicas, and the workload that is offered to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from weft.cli.plan.inputs import cluster_of, deployment_of, model_of
from weft.cli.plan.options import TRAFFIC, DeploymentOptions, FleetOptions
from weft.core.errors import ConfigError, InputFileError
from weft.plan.inference.disaggregate import transfer_bytes
from weft.plan.inference.load import Traffic
from weft.plan.inference.step import StepModel
from weft.plan.simulator.fleet import Fleet, Pool, Transfer
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.arrivals import Content
from weft.plan.workload.lengths import FixedLength, LogNormalLength
from weft.plan.workload.log import log_arrivals, read_log
from weft.plan.workload.traces import read_azure, read_mooncake
from weft.sched.config import SchedulerConfig
from weft.sched.routing import LeastRequests, PrefixAware, RoundRobin, RoutingPolicy

_BLOCK = 16
_SPREAD = 8
ROUTING = {"least": LeastRequests, "round-robin": RoundRobin, "prefix": PrefixAware}


@Parameter(name="*", group=TRAFFIC)
@dataclass(frozen=True)
class WorkloadOptions:
    """What arrives.

    Attributes
    ----------
    isl
        Prompt tokens; the median if lengths vary.
    osl
        Output tokens; the median if lengths vary.
    spread
        Standard deviation of the logarithm of lengths; 0 makes all equal.
    shared
        Prompt tokens that all requests begin with.
    """

    isl: int = 1024
    osl: int = 256
    spread: float = 0.0
    shared: int = 0

    def content(self) -> Content:
        """Return lengths and shared beginnings."""
        if self.spread == 0.0:
            prompt, output = FixedLength(self.isl), FixedLength(self.osl)
            return Content(prompt, output, num_shared_tokens=self.shared)
        return Content(
            LogNormalLength(self.isl, self.spread, _SPREAD * self.isl),
            LogNormalLength(self.osl, self.spread, _SPREAD * self.osl),
            num_shared_tokens=self.shared,
        )


def read_trace(path: Path, limit: int | None) -> tuple[Arrival, ...]:
    """Read a Mooncake, Azure or weft request log, told apart by its first line.

    Raises:
        InputFileError: no such file. ConfigError: a bad line, named by its number.
    """
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline()
    except OSError as error:
        raise InputFileError(f"{path} cannot be read: {error.strerror}") from error
    if first.startswith("TIMESTAMP"):
        return read_azure(path, limit=limit)
    if '"arrival_s"' in first:
        return log_arrivals(read_log(path)[:limit])
    return read_mooncake(path, limit=limit)


def step_model(model: str, hw: str, deployment: DeploymentOptions) -> tuple[str, StepModel]:
    """Return the name of a model and the step times of one replica."""
    name, spec = model_of(model)
    return name, StepModel(deployment_of(spec, cluster_of(hw), deployment))


def fleet_of(step: StepModel, options: FleetOptions, *, max_context: int) -> Fleet:
    """Return equal replicas, or a prefill and a decode pool.

    Raises:
        ConfigError: an unknown routing. ResourceError: the model does not fit.
    """
    if options.routing not in ROUTING:
        raise ConfigError(
            f"no routing is called {options.routing!r}", fix=f"one of {', '.join(ROUTING)}"
        )
    policy: type[RoutingPolicy] = ROUTING[options.routing]
    scheduler = scheduler_of(step, max_context)
    if options.prefill == 0:
        return Fleet((Pool(step, scheduler, options.replicas),), routing=policy)
    cluster = step.deployment.cluster
    one_token = transfer_bytes(step, Traffic(2, 1)) / 2
    wire = Transfer(one_token, cluster.scale_out.rate, cluster.scale_out.start_s)
    pools = (
        Pool(step, scheduler, options.prefill, "prefill"),
        Pool(step, scheduler, options.replicas, "decode"),
    )
    return Fleet(pools, routing=policy, transfer=wire)


def scheduler_of(step: StepModel, max_context: int) -> SchedulerConfig:
    """Return the engine's scheduler with the blocks that fit one replica."""
    tokens = step.deployment.kv_capacity_tokens()
    return SchedulerConfig(
        num_blocks=max(1, tokens // _BLOCK),
        max_context=max_context,
        block_size=_BLOCK,
        max_num_sequences=1024,
        max_tokens_per_step=8192,
        max_waiting=1_000_000,
    )
