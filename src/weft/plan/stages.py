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


@lru_cache(maxsize=4096)
def layer_slices(spec: ModelSpec, layout: TrainingLayout) -> Stages:
    """Return how many layers of each kind every stage has.

    Stages are even; where the layers and two more divide evenly, embedding and head count as one
    layer each, as balanced partitions of large vocabularies do.
    """
    num_stages = layout.pipeline * layout.chunks
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


def rank_weights(
    spec: ModelSpec, layout: TrainingLayout, rank: int, stages: Stages | None = None
) -> RankWeights:
    """Return the weights of one pipeline rank; ``stages`` are ``layer_slices`` if at hand."""
    dense = experts = largest = 0.0
    stages = layer_slices(spec, layout) if stages is None else stages
    for stage in range(rank, len(stages), layout.pipeline):
        for layer, count in stages[stage].items():
            matrices = layer_matrices(layer, spec.dim, layout.tensor)
            routed = sum(m.local_weights(layout.shard) for m in matrices if m.num_experts)
            plain = sum(m.local_weights(layout.shard) for m in matrices if not m.num_experts)
            dense, experts = dense + count * plain, experts + count * routed
            largest = max(largest, plain + routed)
    ends = spec.vocab_size * spec.dim / layout.tensor
    first, last = rank == 0, rank == layout.pipeline - 1
    both = first and last and spec.tie_embeddings
    return RankWeights(dense + ends * (first + last - both), experts, largest)


def fullest_weights(spec: ModelSpec, layout: TrainingLayout) -> RankWeights:
    """Return the weights of the rank that has most."""
    stages = layer_slices(spec, layout)
    ranks = (rank_weights(spec, layout, rank, stages) for rank in range(layout.pipeline))
    return max(ranks, key=lambda weights: weights.total)
