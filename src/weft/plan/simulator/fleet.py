"""What is simulated: pools of replicas, how requests find them, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from weft.core.errors import ConfigError
from weft.plan.simulator.replica import Role
from weft.plan.simulator.roles import RolePolicy
from weft.plan.simulator.runner import Scaled, StepTime
from weft.sched.config import SchedulerConfig
from weft.sched.routing import LeastRequests, RoutingPolicy


@dataclass(frozen=True)
class Pool:
    """Equal replicas.

    Attributes:
        step_time: How long a step takes on one of them.
        scheduler: Sizes and limits of each.
        num_replicas: How many.
        role: "mixed" serves requests from end to end; "prefill" computes prompts and their first
            token, "decode" the rest; "standby" waits for a role.
    """

    step_time: StepTime
    scheduler: SchedulerConfig
    num_replicas: int = 1
    role: Role = "mixed"

    def __post_init__(self) -> None:
        if self.num_replicas < 1:
            raise ConfigError(f"a pool has {self.num_replicas} replicas", fix="use at least 1")
        if self.role == "decode" and not self.scheduler.enable_prefix_cache:
            raise ConfigError(
                "a decode pool receives keys and values through its prefix cache",
                fix="set enable_prefix_cache=True",
            )


@dataclass(frozen=True)
class Transfer:
    """How keys and values get from a prefill to a decode replica.

    Attributes:
        bytes_per_token: Keys and values of one token over all layers.
        bandwidth: Bytes per second of one transfer.
        start_s: Seconds before the first byte.
        hidden_share: Share of the bytes sent while the prompt was still computed, layer by layer.
    """

    bytes_per_token: float
    bandwidth: float
    start_s: float = 0.0
    hidden_share: float = 0.0

    def __post_init__(self) -> None:
        if self.bandwidth <= 0.0 or min(self.bytes_per_token, self.start_s) < 0.0:
            raise ConfigError(f"{self} moves nothing", fix="give a bandwidth above 0")
        if not 0.0 <= self.hidden_share <= 1.0:
            raise ConfigError(f"hidden_share is {self.hidden_share}", fix="use 0 to 1")

    def seconds(self, num_tokens: int) -> float:
        """Return the time from the end of the prompt to the arrival of its last byte."""
        num_bytes = (1.0 - self.hidden_share) * num_tokens * self.bytes_per_token
        return self.start_s + num_bytes / self.bandwidth


@dataclass(frozen=True)
class Failure:
    """A replica that loses everything; its requests begin again elsewhere with what they have.

    Attributes:
        time_s: When.
        replica: Which, counted over the pools in order.
        repair_s: After so long it is back, empty; none means never.
    """

    time_s: float
    replica: int
    repair_s: float | None = None


@dataclass(frozen=True)
class Fleet:
    """Everything that serves.

    Attributes:
        pools: In order; replicas are numbered over all of them.
        routing: Makes the policy for arriving requests.
        decode_routing: Makes the policy for requests whose prompt is computed.
        transfer: Between prefill and decode replicas; needed if there are any.
        failures: What breaks.
        roles: Who changes roles; none means nobody.
        switch_s: Seconds a replica needs to take another role once it is empty.
    """

    pools: tuple[Pool, ...]
    routing: Callable[[], RoutingPolicy] = LeastRequests
    decode_routing: Callable[[], RoutingPolicy] = LeastRequests
    transfer: Transfer | None = None
    failures: tuple[Failure, ...] = ()
    roles: RolePolicy | None = None
    switch_s: float = 0.0

    def slower(self, factor: float) -> Fleet:
        """Return the same fleet with every step taking ``factor`` times as long."""
        pools = tuple(replace(one, step_time=Scaled(one.step_time, factor)) for one in self.pools)
        return replace(self, pools=pools)

    def __post_init__(self) -> None:
        roles = {pool.role for pool in self.pools}
        if not roles - {"standby"}:
            raise ConfigError("no pool serves anything", fix="give at least one pool with a role")
        if ("prefill" in roles) != ("decode" in roles):
            raise ConfigError(
                "prefill and decode pools need each other", fix="give both, or a mixed pool"
            )
        if "mixed" in roles and "prefill" in roles:
            raise ConfigError(
                "mixed and prefill pools would both take arriving requests",
                fix="simulate them apart",
            )
        if "prefill" in roles and self.transfer is None:
            raise ConfigError("keys and values cannot reach the decode pool", fix="give a Transfer")
        for failure in self.failures:
            if not 0 <= failure.replica < self.num_replicas:
                raise ConfigError(
                    f"replica {failure.replica} cannot fail; there are {self.num_replicas}",
                    fix=f"use a number below {self.num_replicas}",
                )

    @property
    def num_replicas(self) -> int:
        return sum(pool.num_replicas for pool in self.pools)

    @property
    def disaggregated(self) -> bool:
        """Whether prompts and outputs are computed on different replicas."""
        return any(pool.role == "prefill" for pool in self.pools)
