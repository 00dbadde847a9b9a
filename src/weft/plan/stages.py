"""Which layers a pipeline rank has, and how many weights that is.

The step's time and its memory are both read from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from weft.plan.accounting import distinct_layers
from weft.plan.layout import TrainingLayout
from weft.plan.matrices import layer_matrices
from weft.plan.pipeline import even_stages
from weft.plan.work import Shard
from weft.spec import LayerSpec, ModelSpec

Stages = tuple[dict[LayerSpec, int], ...]
"""How many layers of each kind every stage has."""


@dataclass(frozen=True)
class RankWeights:
    """Matrix weights of one pipeline rank, before ZeRO.

    Attributes:
        dense: Cut by tensor parallelism or copied; embedding and head at the ends.
        experts: Cut by expert parallelism.
        largest_layer: Weights of the largest layer, gathered at once under ZeRO-3.
    """

    dense: float
    experts: float
    largest_layer: float

    @property
    def total(self) -> float:
        return self.dense + self.experts


def layer_slices(spec: ModelSpec, layout: TrainingLayout) -> Stages:
    """Return how many layers of each kind every stage has.

    Stages are even; where the layers and two more divide evenly, embedding and head count as one
    layer each, as balanced partitions of large vocabularies do.
    """
    return _slices(spec, layout.pipeline * layout.chunks)


@lru_cache(maxsize=1024)
def _slices(spec: ModelSpec, num_stages: int) -> Stages:
    if num_stages == 1:
        return (dict(distinct_layers(spec)),)
    sizes = even_stages(spec.num_layers, num_stages)
    if (spec.num_layers + 2) % num_stages == 0 and spec.num_layers % num_stages:
        size = (spec.num_layers + 2) // num_stages
        sizes = (size - 1, *(size,) * (num_stages - 2), size - 1)
    slices, start = [], 0
    for size in sizes:
        counts: dict[LayerSpec, int] = {}
        for layer in spec.layers[start : start + size]:
            counts[layer] = counts.get(layer, 0) + 1
        slices.append(counts)
        start += size
    return tuple(slices)


def all_weights(spec: ModelSpec, layout: TrainingLayout) -> tuple[RankWeights, ...]:
    """Return the weights of every pipeline rank."""
    return _all_weights(spec, layout.pipeline, layout.chunks, layout.shard)


def fullest_weights(spec: ModelSpec, layout: TrainingLayout) -> RankWeights:
    """Return the weights of the rank that has most."""
    return max(all_weights(spec, layout), key=lambda weights: weights.total)


@lru_cache(maxsize=4096)
def _all_weights(
    spec: ModelSpec, num_ranks: int, chunks: int, shard: Shard
) -> tuple[RankWeights, ...]:
    """Weights of every rank; thousands of layouts share what these sizes decide."""
    slices = _slices(spec, num_ranks * chunks)
    sizes = {layer: _layer_weights(layer, spec.dim, shard) for layer in distinct_layers(spec)}
    ends = spec.vocab_size * spec.dim / shard.tensor
    ranks = []
    for rank in range(num_ranks):
        dense = experts = largest = 0.0
        for stage in range(rank, len(slices), num_ranks):
            for layer, count in slices[stage].items():
                plain, routed = sizes[layer]
                dense, experts = dense + count * plain, experts + count * routed
                largest = max(largest, plain + routed)
        first, last = rank == 0, rank == num_ranks - 1
        both = first and last and spec.tie_embeddings
        ranks.append(RankWeights(dense + ends * (first + last - both), experts, largest))
    return tuple(ranks)


def _layer_weights(layer: LayerSpec, dim: int, shard: Shard) -> tuple[float, float]:
    """Weights of one layer on one device: without the experts, and theirs."""
    matrices = layer_matrices(layer, dim, shard.tensor)
    routed = sum(m.local_weights(shard) for m in matrices if m.num_experts)
    plain = sum(m.local_weights(shard) for m in matrices if not m.num_experts)
    return plain, routed
