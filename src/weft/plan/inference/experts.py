"""Balance of experts, and attention apart from experts.

- ``imbalance`` measures how uneven loads are, ``placed_imbalance`` what replicas make of it.
- ``attention_expert_ratio`` splits devices between attention and experts (AFD: MegaScale-Infer,
  Zhu et al. 2025, arXiv:2504.02263; Step-3, arXiv:2507.19427): micro-batches go back and forth
  between both pools, so the slower pool or the link sets the pace, and enough of them in flight
  hide the link.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from weft.core.errors import ConfigError
from weft.plan.workload.lengths import zipf_weights
from weft.sched.eplb import place_experts


def imbalance(loads: ArrayLike) -> float:
    """Return mean((s − μ)² / μ²): 0 if even, E − 1 if one of E experts takes everything.

    >>> imbalance([5, 5, 5, 5]), imbalance([20, 0, 0, 0])
    (0.0, 3.0)
    """
    loads = np.asarray(loads, np.float64)
    mean = float(loads.mean()) if loads.size else 0.0
    if mean <= 0.0:
        raise ConfigError("there is no load", fix="give at least one load above 0")
    return float(np.mean(np.square(loads / mean - 1.0)))


def max_over_mean(loads: ArrayLike) -> float:
    """Return the busiest over the mean: the factor by which imbalance slows a step."""
    loads = np.asarray(loads, np.float64)
    return float(loads.max() / loads.mean())


def popularity(num_experts: int, skew: float, seed: int = 0) -> NDArray[np.float64]:
    """Return shares of tokens by expert, power-law by rank in random order; sums to 1."""
    weights = zipf_weights(num_experts, skew)
    return np.random.default_rng(seed).permutation(weights)


def placed_imbalance(
    loads_LE: ArrayLike,
    *,
    num_places: int,
    num_devices: int,
    num_groups: int = 1,
    num_nodes: int = 1,
) -> tuple[float, float]:
    """Return the busiest device over the mean before and after placement with replicas.

    Before, experts lie in order and evenly over devices.
    """
    loads = np.asarray(loads_LE, np.float64)
    if loads.shape[1] % num_devices:
        raise ConfigError(
            f"{loads.shape[1]} experts do not lie evenly on {num_devices} devices",
            fix="choose a divisor of the number of experts",
        )
    before = loads.reshape(len(loads), num_devices, -1).sum(axis=2)
    placement = place_experts(
        loads,
        num_places=num_places,
        num_groups=num_groups,
        num_nodes=num_nodes,
        num_devices=num_devices,
    )
    after = placement.device_loads(loads)
    return _mean_peak(before), _mean_peak(after)


def _mean_peak(loads_LG: NDArray[np.float64]) -> float:
    return float(np.mean(loads_LG.max(axis=1) / loads_LG.mean(axis=1)))


@dataclass(frozen=True)
class PhaseTimes:
    """Times of one layer and one micro-batch of one attention device.

    Attributes:
        attention_s: On its attention device.
        expert_s: The work it makes for experts, in seconds of one expert device.
        expert_fixed_s: What an expert device takes however few tokens it gets: reading weights.
        send_s: One way over the link.
    """

    attention_s: float
    expert_s: float
    expert_fixed_s: float = 0.0
    send_s: float = 0.0


@dataclass(frozen=True)
class DeviceSplit:
    """Attention and expert devices.

    Attributes:
        num_attention: Devices for attention.
        num_expert: Devices for experts.
        layer_s: Pace: seconds per layer and micro-batch.
        per_device: Micro-batch layers per second and device.
        num_in_flight: Micro-batches that keep the slower side busy; 3 hides a link that takes as
            long as either side.
    """

    num_attention: int
    num_expert: int
    layer_s: float
    per_device: float
    num_in_flight: int


def split_devices(times: PhaseTimes, num_attention: int, num_expert: int) -> DeviceSplit:
    """Return the pace of a given split."""
    if min(num_attention, num_expert) < 1:
        raise ConfigError("both sides need at least one device")
    expert_s = max(times.expert_fixed_s, times.expert_s * num_attention / num_expert)
    layer_s = max(times.attention_s, expert_s, times.send_s)
    turn_s = times.attention_s + expert_s + 2.0 * times.send_s
    num_devices = num_attention + num_expert
    return DeviceSplit(
        num_attention,
        num_expert,
        layer_s,
        num_attention / layer_s / num_devices,
        max(1, math.ceil(turn_s / layer_s - 1e-9)),
    )


def attention_expert_ratio(times: PhaseTimes, num_devices: int) -> DeviceSplit:
    """Return the split of so many devices with the most throughput, in closed form.

    Experts keep up while ``num_expert >= num_attention · expert_s / attention_s``; beyond that the
    pace is theirs. The optimum is at that line or at the pace that link and weights allow.
    """
    if num_devices < 2:
        raise ConfigError(f"{num_devices} devices cannot be split", fix="use at least 2")
    pace_s = max(times.attention_s, times.expert_fixed_s, times.send_s)
    ideal = num_devices * pace_s / (pace_s + times.expert_s)
    around = {math.floor(ideal), math.ceil(ideal)}
    splits = [
        split_devices(times, count, num_devices - count)
        for count in sorted(min(max(1, c), num_devices - 1) for c in around)
    ]
    return max(splits, key=lambda split: split.per_device)
