"""One step of a serving engine: kernels, collectives, host.

Each kernel takes the larger of its compute time and its memory time; the sum over kernels is the
device's time. Data-parallel groups run the same step on their own sequences, so a step's work is
given per group, the largest one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from weft.plan.accounting import embedding_op, head_ops, layer_ops
from weft.plan.collectives import collective_cost
from weft.plan.cost import Bound, Cost
from weft.plan.inference.constants import ServingConstants, serving_constants
from weft.plan.inference.deployment import Deployment
from weft.plan.kernels import DEFAULT_KERNELS, peak_flops, shape_share
from weft.plan.ops import ELEMENT_BYTES, Op
from weft.plan.work import Dtypes, Segment, Shard, Work
from weft.sched.plan import StepPlan
from weft.spec import LayerSpec, MLASpec, MoESpec

Host = Literal["server", "loop"]
# Products of feed-forward parts, whose weights may be stored in fewer bits than attention's.
_FFN = frozenset({"up", "down", "experts up", "experts down", "shared up", "shared down"})
_EXPERTS = frozenset({"experts up", "experts down"})
# Kernels that depend on how latent attention is computed; up to so many new tokens it decodes.
_LATENT = frozenset({"latent up", "absorb", "attention", "indexer"})
_FEW = 8
_NUM_BITS = {"float8": 8, "int8": 8, "float4": 4}


@dataclass(frozen=True)
class Collective:
    """One kind of exchange in a step.

    Attributes:
        name: What it exchanges.
        kind: As in ``weft.plan.collectives``.
        num_bytes: Of each.
        group_size: Devices that take part.
        count: How often.
        seconds: Of each, on the deployment's links.
        sent_bytes: A device sends in each.
    """

    name: str
    kind: Literal["all_reduce", "all_to_all"]
    num_bytes: float
    group_size: int
    count: int
    seconds: float = 0.0
    sent_bytes: float = 0.0


@lru_cache(maxsize=65_536)
def step_ops(deployment: Deployment, work: Work) -> tuple[Op, ...]:
    """Return the kernels of one data-parallel group's device, over all pipeline stages."""
    spec, shard, storage = deployment.spec, deployment.shard, deployment.storage
    mixer, ffn = storage.dtypes(storage.mixer), storage.dtypes(storage.ffn)
    ops = [embedding_op(spec, work, shard, mixer)]
    for layer, count in deployment.layers.items():
        parts = zip(
            _layer_ops(layer, spec.dim, work, shard, mixer),
            _layer_ops(layer, spec.dim, work, shard, ffn),
            strict=True,
        )
        ops += [(low if op.name in _FFN else op).times(count) for op, low in parts]
    return (*ops, *head_ops(spec, work, shard, mixer))


def _layer_ops(
    layer: LayerSpec, dim: int, work: Work, shard: Shard, dtypes: Dtypes
) -> tuple[Op, ...]:
    """Return a layer's kernels; latent attention treats prompts and single tokens apart."""
    short = tuple(segment for segment in work.segments if segment.new <= _FEW)
    long = tuple(segment for segment in work.segments if segment.new > _FEW)
    if not isinstance(layer.mixer, MLASpec) or not short or not long:
        return layer_ops(layer, dim, work, shard, dtypes)
    shared = layer_ops(layer, dim, work, shard, dtypes, mla_mode="absorbed")
    ops = [op for op in shared if op.name not in _LATENT]
    for segments in (short, long):
        part = layer_ops(layer, dim, replace(work, segments=segments), shard, dtypes)
        ops += [op for op in part if op.name in _LATENT]
    return tuple(ops)


@lru_cache(maxsize=65_536)
def step_collectives(deployment: Deployment, work: Work) -> tuple[Collective, ...]:
    """Return what the devices of a stage exchange."""
    found: Counter[Collective] = Counter()
    for layer, count in deployment.layers.items():
        for one in _layer_collectives(deployment, layer.ffn, work):
            found[one] += count
    return tuple(_timed(one, count, deployment) for one, count in found.items())


def _timed(one: Collective, count: int, deployment: Deployment) -> Collective:
    cost = collective_cost(one.name, one.kind, one.num_bytes, deployment.cluster, one.group_size)
    return replace(one, count=count, seconds=cost.seconds, sent_bytes=cost.network_bytes)


def _layer_collectives(deployment: Deployment, ffn: object, work: Work) -> Iterator[Collective]:
    tensor, dim = deployment.tensor, deployment.spec.dim
    stream_bytes = work.num_tokens * dim * 2.0
    if tensor > 1:
        yield Collective("attention sum", "all_reduce", stream_bytes, tensor, 1)
    if not isinstance(ffn, MoESpec) or deployment.data == 1:
        if tensor > 1:
            yield Collective("feed-forward sum", "all_reduce", stream_bytes, tensor, 1)
        return
    # A token goes once to each device that holds one of its experts, in one byte per number, and
    # comes back in two; tensor ranks share the sending.
    size = deployment.stage_devices
    targets = size * (1.0 - (1.0 - 1.0 / size) ** ffn.top_k)
    sent = work.num_tokens / tensor * targets * dim
    yield Collective("dispatch", "all_to_all", sent, size, 1)
    yield Collective("combine", "all_to_all", 2.0 * sent, size, 1)


@dataclass(frozen=True)
class StepModel:
    """How long steps take on a deployment.

    Attributes:
        deployment: What runs.
        constants: Fitted constants.
        host: "server" for an engine behind HTTP, "loop" for a bare generation loop.
        compiled: Prompts run compiled (weft, vLLM), with fewer launches than module by module
            (SGLang, TensorRT-LLM on PyTorch).
    """

    deployment: Deployment
    constants: ServingConstants = field(default_factory=serving_constants)
    host: Host = "server"
    compiled: bool = True

    def under_load(self) -> StepModel:
        """Return the pace of steps that follow each other.

        The host then launches ahead of the device, which hides what is not compiled; it shows only
        where somebody waits for the first token.
        """
        return self if self.compiled else replace(self, compiled=True)

    def seconds(self, work: Work, *, graphs: bool | None = None) -> float:
        """Return the seconds of one step; the same as ``cost(...).seconds``, without the tree."""
        ops = step_ops(self.deployment, work)
        device_s = sum(sum(self._times(op)) * op.count for op in ops)
        device_s += sum(
            (one.seconds + self.constants.collective_s) * one.count
            for one in step_collectives(self.deployment, work)
        )
        exposed_s = 0.0 if self._has_graph(work, graphs) else self._exposed_seconds(ops, device_s)
        return device_s + exposed_s + self._host_seconds(work.num_sequences)

    def cost(self, work: Work, *, graphs: bool | None = None) -> Cost:
        """Return the cost of one step: device (kernels, network), launch, host.

        Args:
            work: Of the busiest data-parallel group.
            graphs: Kernels are replayed from a graph; none means if no sequence has more than
                a few new tokens.
        """
        ops = step_ops(self.deployment, work)
        kernels = Cost.total("kernels", map(self.op, ops))
        network = Cost.total("network", self._network(work))
        device = Cost.total("device", (kernels, network))
        launch_s = 0.0
        if not self._has_graph(work, graphs):
            launch_s = self._exposed_seconds(ops, device.seconds)
        launch = Cost("launch", launch_s, bound="latency", grade="fit")
        host_s = self._host_seconds(work.num_sequences)
        host = Cost("host", host_s, bound="latency", grade="fit")
        return Cost.total("step", (device, launch, host))

    def __call__(self, plan: StepPlan) -> float:
        """Return the seconds of a scheduler's step; this makes it a simulator's step time."""
        return self.seconds(plan_work(plan)) if plan.items else 0.0

    def op(self, op: Op) -> Cost:
        """Return the cost of one kernel as a serving engine runs it."""
        busy_s, start_s = self._times(op)
        bound: Bound = "memory" if self._compute_seconds(op) < busy_s else "compute"
        return Cost(
            name=op.name,
            seconds=(busy_s + start_s) * op.count,
            flops=op.total_flops,
            memory_bytes=op.total_bytes,
            bound="latency" if start_s > busy_s else bound,
            grade="fit",
        )

    def _times(self, op: Op) -> tuple[float, float]:
        """Seconds of one execution: its work, and what it takes besides."""
        constants = self.constants
        memory_s = self._memory_seconds(op)
        busy_s = max(self._compute_seconds(op), memory_s)
        if op.name in _EXPERTS and self.deployment.data > 1:
            busy_s *= constants.expert_imbalance
        around_s = constants.expert_kernel_s if op.name == "router" else 0.0
        return busy_s, constants.kernel_s + around_s

    def _memory_seconds(self, op: Op) -> float:
        constants, deployment = self.constants, self.deployment
        num_bytes, share = op.memory_bytes, constants.weight_share
        if op.kind == "attention":
            share = constants.cache_share
        elif op.name in _EXPERTS:
            num_bytes -= self._spared_bytes(op)
            piece = op.weights / op.groups * ELEMENT_BYTES[deployment.storage.ffn]
            share *= piece / (piece + constants.expert_half_bytes)
        if op.name in _FFN and deployment.storage.weights_only:
            share *= constants.unpack_share
        return num_bytes / (deployment.cluster.device.achievable_bandwidth * share)

    def _spared_bytes(self, op: Op) -> float:
        """Return weights of experts that balanced routing would read and uneven routing does not.

        With popularity Gamma-distributed, tokens per expert are negative-binomial instead of
        Poisson, and more experts get none.
        """
        held = self.deployment.num_experts / self.deployment.expert
        untouched = max(1.0 - op.groups / held, 1e-12)  # the share of experts, if balanced
        shape = self.constants.popularity_shape
        touched = held * (1.0 - (1.0 - math.log(untouched) / shape) ** -shape)
        size = ELEMENT_BYTES[self.deployment.storage.ffn]
        return op.weights * size * max(0.0, 1.0 - touched / op.groups)

    def _compute_seconds(self, op: Op) -> float:
        constants, device = self.constants, self.deployment.cluster.device
        if op.flops == 0.0 or op.kind == "elementwise":
            return 0.0
        if op.kind == "attention":
            share = device.attention_share * constants.attention_share
            return op.flops / (device.matmul_flops["bfloat16"] * share)
        rate = peak_flops(device, op.dtype)
        share = constants.product_share * shape_share(op, rate, DEFAULT_KERNELS)
        bits = _NUM_BITS.get(op.dtype, 16) if op.dtype in device.matmul_flops else 16
        if bits <= 8:
            share *= constants.quantised_share
        if bits <= 4:
            share *= constants.four_bit_share
        if op.name in _EXPERTS:
            share *= constants.expert_share
        return op.flops / (rate * share)

    def _network(self, work: Work) -> Iterator[Cost]:
        for one in step_collectives(self.deployment, work):
            seconds = (one.seconds + self.constants.collective_s) * one.count
            sent = one.sent_bytes * one.count
            yield Cost(one.name, seconds, network_bytes=sent, bound="network", grade="fit")

    def _exposed_seconds(self, ops: tuple[Op, ...], device_s: float) -> float:
        """Return what launching kernels one by one adds to the device's time.

        The host runs ahead of the device unless kernels are short, so the step takes the larger of
        both and, as kernels differ, a little more: the root of the sum of cubes.
        """
        launch_s = self._launch_seconds(ops)
        return math.cbrt(launch_s**3 + device_s**3) - device_s

    def _launch_seconds(self, ops: tuple[Op, ...]) -> float:
        constants = self.constants
        count = Counter[str]()
        for op in ops:
            count[op.name] += op.count
        launch_s = (
            count.total() * constants.launch_s
            + count["router"] * constants.expert_launch_s
            + count["latent down"] * constants.latent_launch_s
        )
        return launch_s if self.compiled else launch_s * constants.eager_launch

    def _host_seconds(self, num_sequences: int) -> float:
        constants = self.constants
        if self.host == "loop":
            return constants.static_step_s
        return constants.step_s + constants.sequence_s * num_sequences

    @staticmethod
    def _has_graph(work: Work, graphs: bool | None) -> bool:
        if graphs is not None:
            return graphs
        return all(segment.new <= _FEW for segment in work.segments)


def plan_work(plan: StepPlan) -> Work:
    """Return a scheduler's step as work, sequences alike taken together."""
    segments: dict[tuple[int, int], int] = {}
    num_logits = 0
    for item in plan.items:
        # Contexts of single tokens are rounded to 32: a step's time does not turn on less.
        single = len(item.tokens) == 1
        key = (len(item.tokens), (item.start + 16) // 32 * 32 if single else item.start)
        segments[key] = segments.get(key, 0) + 1
        num_logits += item.sample
    work = tuple(Segment(new, cached, count) for (new, cached), count in segments.items())
    return Work(work, num_logits=max(1, num_logits))
