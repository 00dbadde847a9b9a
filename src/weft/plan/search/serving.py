"""Deployments under a service level: how devices are cut into replicas or pools, ranked.

Every way is loaded with as many clients as keep the level, found by bisection, since latencies
grow with clients. What remains is compared by output tokens per second and device; the Pareto
front shows what speed per user costs in rate per device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from weft.core.errors import ConfigError, ResourceError
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.deployment import Deployment, Storage
from weft.plan.inference.disaggregate import (
    Disaggregated,
    best_ratio,
    estimate_disaggregated,
)
from weft.plan.inference.load import LoadEstimate, Traffic, estimate_closed_loop, max_running
from weft.plan.inference.step import StepModel
from weft.plan.search.rules import expert_count, tensor_rule
from weft.plan.simulator.result import ServiceLevel
from weft.spec import ModelSpec

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_MOST_CLIENTS = 1 << 14
_FULL = 0.98


@dataclass(frozen=True)
class ServingOption:
    """One way to serve.

    Attributes:
        name: In a word: how a replica is cut, or both pools.
        num_replicas: Equal replicas; workers of both kinds for pools.
        num_clients: In flight over all replicas.
        ttft_s: Mean time to first token.
        tpot_s: Mean time per further token.
        tokens_per_s_per_device: Output, over all devices given, idle ones too.
        num_devices: In use; some may be left over.
        binding: What keeps it from more: "tpot", "ttft" or "cache".
        deployment: Of one replica, or of one decode worker.
        prefill: Of one prefill worker, if pools are apart.
    """

    name: str
    num_replicas: int
    num_clients: int
    ttft_s: float
    tpot_s: float
    tokens_per_s_per_device: float
    num_devices: int
    binding: str
    deployment: Deployment
    prefill: Deployment | None = None

    @property
    def tokens_per_s_per_user(self) -> float:
        """Speed that one client sees."""
        return 1.0 / self.tpot_s


@dataclass(frozen=True)
class ServingSpace:
    """What is tried.

    Attributes:
        cluster: All devices.
        storage: Element types of weights and cache.
        traffic: What every request looks like.
        level: What must be kept; none promises nothing.
        pools: Try prefill and decode apart too.
    """

    cluster: Cluster
    traffic: Traffic
    storage: Storage = field(default_factory=Storage)
    level: ServiceLevel | None = None
    pools: bool = True


@dataclass(frozen=True)
class ServingSearch:
    """What a search found.

    Attributes:
        best: Most output per device first.
        front: Options no other beats in both rate per device and speed per user.
        rejected: How many fell, by reason.
    """

    best: tuple[ServingOption, ...]
    front: tuple[ServingOption, ...]
    rejected: dict[str, int]


def search_serving(spec: ModelSpec, space: ServingSpace, *, num_best: int = 10) -> ServingSearch:
    """Try every deployment of a space.

    Raises:
        ResourceError: nothing fits or keeps the level; says what fell for which reason.
    """
    rejected: Counter[str] = Counter()
    workers = list(_workers(spec, space, rejected))
    found = [option for one in workers if (option := _replicas(one, space, rejected))]
    lighter = [light for option in found for light in _lighter(option, space)]
    if space.pools:
        found += _pools(workers, space, rejected)
    if not found:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in rejected.most_common())
        raise ResourceError(
            f"no deployment serves this: {reasons}",
            fix="allow more time, use more devices or fewer bits (--dtype float8)",
        )
    found.sort(key=lambda one: -one.tokens_per_s_per_device)
    return ServingSearch(tuple(found[:num_best]), pareto([*found, *lighter]), dict(rejected))


def pareto(options: list[ServingOption]) -> tuple[ServingOption, ...]:
    """Return the options none beats in rate per device and speed per user, fastest user last."""
    front: list[ServingOption] = []
    for one in sorted(options, key=lambda o: (-o.tokens_per_s_per_device, o.tpot_s)):
        if not front or one.tpot_s < front[-1].tpot_s:
            front.append(one)
    return tuple(front)


def _workers(spec: ModelSpec, space: ServingSpace, rejected: Counter[str]) -> Iterator[StepModel]:
    """Yield every way to cut one replica that holds the model and at least one request."""
    whole = space.cluster
    for size in (n for n in _SIZES if n <= whole.num_devices):
        for tensor in (n for n in _SIZES if size % n == 0 and n <= size):
            data = size // tensor
            reason = tensor_rule(spec, tensor, whole.devices_per_node)
            if not reason and data > 1 and not expert_count(spec):
                continue  # data-parallel attention is for mixtures; dense models use replicas
            if reason:
                rejected[reason] += 1
                continue
            expert = size if data > 1 and expert_count(spec) % size == 0 else 1
            model = StepModel(
                Deployment(
                    spec,
                    whole.with_devices(size),
                    tensor=tensor,
                    data=data,
                    expert=expert,
                    storage=space.storage,
                )
            )
            try:
                max_running(model, space.traffic)
            except ResourceError:
                rejected["memory"] += 1
            else:
                yield model


def _replicas(
    model: StepModel, space: ServingSpace, rejected: Counter[str]
) -> ServingOption | None:
    """Return a replica loaded with as many clients as keep the level."""
    most = max_running(model, space.traffic) * model.deployment.data
    low, high, missed = 0, most, "cache"
    while low < high:
        middle = (low + high + 1) // 2
        failed = _misses(_load(model, space, middle), space.level)
        if failed:
            high, missed = middle - 1, failed
        else:
            low = middle
    if low == 0:
        rejected[missed] += 1
        return None
    return _loaded(model, space, low, "cache" if low > _FULL * most else missed)


def _loaded(model: StepModel, space: ServingSpace, clients: int, binding: str) -> ServingOption:
    """Return equal replicas with so many clients each."""
    found = _load(model, space, clients)
    size = model.deployment.cluster.num_devices
    count = space.cluster.num_devices // size
    rate = found.output_tokens_per_s * count
    return ServingOption(
        name=_name(model.deployment),
        num_replicas=count,
        num_clients=clients * count,
        ttft_s=found.ttft_s,
        tpot_s=found.tpot_s,
        tokens_per_s_per_device=rate / space.cluster.num_devices,
        num_devices=count * size,
        binding=binding,
        deployment=model.deployment,
    )


def _lighter(option: ServingOption, space: ServingSpace) -> Iterator[ServingOption]:
    """Yield the same replicas with half the clients, and half of those, down to one each."""
    clients = option.num_clients // option.num_replicas // 2
    while clients >= 1:
        yield _loaded(StepModel(option.deployment), space, clients, "clients")
        clients //= 2


def _load(model: StepModel, space: ServingSpace, clients: int) -> LoadEstimate:
    return estimate_closed_loop(model, space.traffic, num_clients=clients)


def _misses(found: LoadEstimate, level: ServiceLevel | None) -> str:
    """Return the name of a broken limit; empty if all are kept."""
    if level is None:
        return ""
    for name, limit in vars(level).items():
        if limit is not None and getattr(found, name) > limit:
            return name.removesuffix("_s")
    return ""


def _pools(
    workers: list[StepModel], space: ServingSpace, rejected: Counter[str]
) -> Iterator[ServingOption]:
    """Yield pairs of pools whose workers keep each other busy."""
    tpot_s = None if space.level is None else space.level.tpot_s
    for prefill in workers:
        for decode in workers:
            option = _pair(prefill, decode, space, tpot_s)
            if isinstance(option, str):
                rejected[option] += 1
            else:
                yield option


def _pair(
    prefill: StepModel, decode: StepModel, space: ServingSpace, tpot_s: float | None
) -> ServingOption | str:
    sizes = [one.deployment.cluster.num_devices for one in (prefill, decode)]
    if sum(sizes) > space.cluster.num_devices:
        return "pools need more devices"
    try:
        ratio = best_ratio(prefill, decode, space.traffic, max_tpot_s=tpot_s, most_workers=8)
    except ConfigError:
        return "tpot"
    unit = ratio.num_prefill * sizes[0] + ratio.num_decode * sizes[1]
    times = space.cluster.num_devices // unit
    if times == 0 or ratio.requests_per_s == 0.0:
        return "pools need more devices"
    pools = Disaggregated(
        prefill, times * ratio.num_prefill, decode, times * ratio.num_decode,
        space.cluster.scale_out,
    )  # fmt: skip
    clients = _pool_clients(pools, space)
    if clients == 0:
        return "ttft"
    found = estimate_disaggregated(pools, space.traffic, num_clients=clients)
    return ServingOption(
        name=f"{pools.num_prefill}x({_name(prefill.deployment)}) prefill + "
        f"{pools.num_decode}x({_name(decode.deployment)}) decode",
        num_replicas=pools.num_prefill + pools.num_decode,
        num_clients=clients,
        ttft_s=found.ttft_s,
        tpot_s=found.tpot_s,
        tokens_per_s_per_device=found.output_tokens_per_s / space.cluster.num_devices,
        num_devices=pools.num_devices,
        binding="prefill" if found.prefill_busy > _FULL else "decode",
        deployment=decode.deployment,
        prefill=prefill.deployment,
    )


def _pool_clients(pools: Disaggregated, space: ServingSpace) -> int:
    """Return the most clients, by powers of two and bisection, that keep the level."""
    low, high = 0, _MOST_CLIENTS
    while high - low > max(1, low // 32):
        middle = (low + high) // 2 if low else high // 2
        found = estimate_disaggregated(pools, space.traffic, num_clients=max(1, middle))
        kept = space.level is None or all(
            limit is None or getattr(found, name, 0.0) <= limit
            for name, limit in vars(space.level).items()
        )
        low, high = (middle, high) if kept else (low, middle)
    return low


def _name(one: Deployment) -> str:
    parts = [f"tp{one.tensor}"]
    if one.data > 1:
        parts.append(f"dp{one.data}")
    if one.expert > 1:
        parts.append(f"ep{one.expert}")
    return " ".join(parts)
