"""Expert placement for balance: replicate busy experts and pack the replicas onto devices.

The greedy algorithm of DeepSeek's expert-parallelism load balancer (EPLB; described in the
DeepSeek-V3 report, arXiv:2412.19437, section 3.4.2, and published at github.com/deepseek-ai/EPLB):

1. *Hierarchical*, when groups of experts divide evenly over nodes: pack whole groups onto nodes, so
   that group-limited routing stays inside a node; then replicate and pack inside each node.
2. *Global*, otherwise: one node, one group.

Replicating gives each spare place to the expert whose replicas carry most at that moment. Packing
visits loads from the largest and gives each to the lightest device that has a place left. Sums
are float32 and ties go to the lower index, so the maps equal the published ones number for number.

Legend: L layers, E experts, P physical places (P >= E), S nodes x places per node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from weft.core.errors import ConfigError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ExpertPlacement:
    """Where the replicas of every expert are.

    Attributes:
        physical_to_logical_LP: Expert in each place; places are numbered device by device.
        logical_to_physical_LER: Places of each expert, -1 after the last.
        num_replicas_LE: How many there are.
        num_devices: Devices the places are spread over evenly.
    """

    physical_to_logical_LP: Ints
    logical_to_physical_LER: Ints
    num_replicas_LE: Ints
    num_devices: int

    def device_loads(self, loads_LE: ArrayLike) -> NDArray[np.float64]:
        """Return each device's load, [layers, devices], if replicas share their expert's evenly."""
        loads = np.asarray(loads_LE, np.float64) / self.num_replicas_LE
        placed_LP = np.take_along_axis(loads, self.physical_to_logical_LP, axis=1)
        return placed_LP.reshape(len(placed_LP), self.num_devices, -1).sum(axis=2)


def place_experts(
    loads_LE: ArrayLike,
    *,
    num_places: int,
    num_groups: int = 1,
    num_nodes: int = 1,
    num_devices: int = 1,
) -> ExpertPlacement:
    """Choose replicas and places for every layer.

    Args:
        loads_LE: Load of each expert, such as tokens it got; [layers, experts].
        num_places: Experts and replicas together, per layer.
        num_groups: Groups of experts, for group-limited routing.
        num_nodes: Nodes; inside one the network is fast.
        num_devices: Devices over all nodes.

    Raises:
        ConfigError: the numbers do not divide evenly, or there are fewer places than experts.
    """
    loads = np.asarray(loads_LE, np.float32)
    _check(loads, num_places, num_groups, num_nodes, num_devices)
    if num_groups % num_nodes:
        num_groups = num_nodes = 1
    maps = [_place_layer(row, num_places, num_groups, num_nodes, num_devices) for row in loads]
    physical_to_logical = np.stack(maps)
    num_replicas = np.stack([np.bincount(row, minlength=loads.shape[1]) for row in maps])
    return ExpertPlacement(
        physical_to_logical, _invert(physical_to_logical, num_replicas), num_replicas, num_devices
    )


def pack_evenly(loads: ArrayLike, num_packs: int) -> tuple[Ints, Ints]:
    """Pack items into packs of equal size; return each item's pack and its rank therein."""
    loads = np.asarray(loads, np.float32)
    size = len(loads) // num_packs
    if size == 1:
        return np.arange(len(loads)), np.zeros(len(loads), np.int64)
    packs, ranks = np.zeros(len(loads), np.int64), np.zeros(len(loads), np.int64)
    pack_loads, pack_sizes = np.zeros(num_packs, np.float32), np.zeros(num_packs, np.int64)
    for item in np.argsort(-loads, kind="stable"):
        pack = int(np.argmin(np.where(pack_sizes < size, pack_loads, np.inf)))
        packs[item], ranks[item] = pack, pack_sizes[pack]
        pack_loads[pack] += loads[item]
        pack_sizes[pack] += 1
    return packs, ranks


def replicate(loads: ArrayLike, num_places: int) -> tuple[Ints, Ints]:
    """Give every item a place and spare places to the busiest; return item by place, and counts."""
    loads = np.asarray(loads, np.float32)
    counts = np.ones(len(loads), np.int64)
    items = list(range(len(loads)))
    for _ in range(num_places - len(loads)):
        busiest = int(np.argmax(loads / counts.astype(np.float32)))
        items.append(busiest)
        counts[busiest] += 1
    return np.array(items, np.int64), counts


def _place_layer(
    loads: Floats, num_places: int, num_groups: int, num_nodes: int, num_devices: int
) -> Ints:
    """Return the expert in each place of one layer."""
    experts_by_node = _experts_by_node(loads, num_groups, num_nodes)
    places = []
    for experts in experts_by_node:
        items, counts = replicate(loads[experts], num_places // num_nodes)
        shares = (loads[experts] / counts.astype(np.float32))[items]
        devices, ranks = pack_evenly(shares, num_devices // num_nodes)
        order = np.argsort(devices * len(items) + ranks)
        places.append(experts[items[order]])
    return np.concatenate(places)


def _experts_by_node(loads: Floats, num_groups: int, num_nodes: int) -> Ints:
    """Pack groups onto nodes; return [nodes, experts per node]."""
    groups = np.arange(len(loads)).reshape(num_groups, -1)
    nodes, ranks = pack_evenly(loads.reshape(num_groups, -1).sum(axis=1), num_nodes)
    order = np.argsort(nodes * num_groups + ranks)
    return groups[order].reshape(num_nodes, -1)


def _invert(physical_to_logical_LP: Ints, num_replicas_LE: Ints) -> Ints:
    num_layers, num_experts = num_replicas_LE.shape
    places = np.full((num_layers, num_experts, int(num_replicas_LE.max())), -1, np.int64)
    seen = np.zeros_like(num_replicas_LE)
    for layer, row in enumerate(physical_to_logical_LP):
        for place, expert in enumerate(row):
            places[layer, expert, seen[layer, expert]] = place
            seen[layer, expert] += 1
    return places


def _check(
    loads: Floats, num_places: int, num_groups: int, num_nodes: int, num_devices: int
) -> None:
    if loads.ndim != 2 or loads.size == 0 or (loads < 0).any():
        raise ConfigError(
            f"expert loads have shape {loads.shape}", fix="give loads >= 0 as [layers, experts]"
        )
    num_experts = loads.shape[1]
    if num_places < num_experts:
        raise ConfigError(
            f"{num_places} places cannot hold {num_experts} experts",
            fix=f"use at least {num_experts} places",
        )
    for number, divisor, words in (
        (num_experts, num_groups, "experts do not split evenly into {} groups"),
        (num_places, num_devices, "places do not split evenly over {} devices"),
        (num_devices, num_nodes, "devices do not split evenly over {} nodes"),
    ):
        if divisor < 1 or number % divisor:
            raise ConfigError(
                f"{number} {words.format(divisor)}", fix=f"choose a divisor of {number}"
            )
