"""Moving replicas between roles while the load changes: role switching and elasticity.

A switch is not free: the replica takes no new requests, finishes those it has, and then needs some
time (to load other weights or graphs) before it takes requests in its new role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from weft.core.errors import ConfigError
from weft.plan.simulator.replica import Role
from weft.sched.routing import ReplicaLoad


@dataclass(frozen=True)
class Member:
    """One replica as a role policy sees it.

    Attributes:
        number: Its name.
        role: What it does; the new role while it switches.
        load: Requests and cache.
        switching: It drains or starts, and cannot be switched again yet.
    """

    number: int
    role: Role
    load: ReplicaLoad
    switching: bool = False


class RolePolicy(Protocol):
    """Decides now and then who does what."""

    @property
    def interval_s(self) -> float:
        """Seconds between decisions."""
        ...

    def decide(self, members: Sequence[Member]) -> Mapping[int, Role]:
        """Return the new roles of those that change."""
        ...


@dataclass(frozen=True)
class BalanceRoles:
    """Moves one replica to the pool with more work per replica.

    Attributes:
        interval_s: Seconds between decisions.
        ratio: Requests per replica of one pool over the other's above which one moves.
        min_requests: And so many requests per replica at least, lest idle pools trade.
    """

    interval_s: float = 10.0
    ratio: float = 2.0
    min_requests: float = 4.0

    def __post_init__(self) -> None:
        _positive_interval(self.interval_s)

    def decide(self, members: Sequence[Member]) -> Mapping[int, Role]:
        """Move the least busy replica of the calmer pool, never its last one."""
        if any(member.switching for member in members):
            return {}
        pools: dict[Role, list[Member]] = {
            role: [member for member in members if member.role == role]
            for role in ("prefill", "decode")
        }
        if not all(pools.values()):
            return {}
        calm, busy = sorted(pools, key=lambda role: _mean_requests(pools[role]))
        wanted = max(self.min_requests, self.ratio * _mean_requests(pools[calm]))
        if len(pools[calm]) == 1 or _mean_requests(pools[busy]) < wanted:
            return {}
        mover = min(pools[calm], key=lambda member: member.load.num_requests)
        return {mover.number: busy}


@dataclass(frozen=True)
class ScaleWithLoad:
    """Starts a replica on standby when those at work are busy, and rests one when they are idle.

    Attributes:
        interval_s: Seconds between decisions.
        high: Requests per replica above which one more starts.
        low: Requests per replica below which one rests.
        min_replicas: Never fewer at work.
    """

    interval_s: float = 10.0
    high: float = 16.0
    low: float = 4.0
    min_replicas: int = 1

    def __post_init__(self) -> None:
        _positive_interval(self.interval_s)
        if not 0.0 <= self.low < self.high or self.min_replicas < 1:
            raise ConfigError(f"{self} cannot scale", fix="give 0 <= low < high, min_replicas >= 1")

    def decide(self, members: Sequence[Member]) -> Mapping[int, Role]:
        """Change at most one replica."""
        at_work = [member for member in members if member.role == "mixed"]
        resting = [member for member in members if member.role == "standby"]
        if any(member.switching for member in members):
            return {}
        if resting and (not at_work or _mean_requests(at_work) > self.high):
            return {resting[0].number: "mixed"}
        if len(at_work) > self.min_replicas and _mean_requests(at_work) < self.low:
            calmest = min(at_work, key=lambda member: (member.load.num_requests, -member.number))
            return {calmest.number: "standby"}
        return {}


def _mean_requests(members: Sequence[Member]) -> float:
    return sum(member.load.num_requests for member in members) / len(members)


def _positive_interval(interval_s: float) -> None:
    if interval_s <= 0.0:
        raise ConfigError(f"interval_s is {interval_s}", fix="use a time above 0")
