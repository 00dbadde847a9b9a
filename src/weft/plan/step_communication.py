"""Exposed communication of a training step, one function per kind of parallelism.

Tensor parallelism reduces twice per layer and direction (Shoeybi et al. 2019, arXiv:1909.08053),
context parallelism passes keys and values around, expert parallelism exchanges tokens, the
pipeline hands over activations, and data parallelism reduces gradients and gathers weights
(ZeRO, arXiv:1910.02054). What the layout overlaps hides behind kernels; a share of hidden
communication still slows them.
"""

from __future__ import annotations

import math
from dataclasses import replace

from weft.plan.collectives import choose, send_seconds
from weft.plan.hardware.cluster import Cluster
from weft.plan.layout import TrainingLayout
from weft.plan.stages import RankWeights
from weft.plan.training_constants import TrainingConstants
from weft.spec import AttentionSpec, LayerSpec, MLASpec, ModelSpec, MoESpec


def tensor_seconds(
    layer: LayerSpec,
    dim: int,
    layout: TrainingLayout,
    cluster: Cluster,
    constants: TrainingConstants,
    kernels_s: float,
) -> float:
    """Two reductions forward, two backward, and those the recomputation repeats."""
    if layout.tensor == 1:
        return 0.0
    num_bytes = layout.micro_batch * layout.length / layout.context * dim * 2.0
    once_s = choose("all_reduce", num_bytes, cluster, layout.tensor).seconds
    once_s /= constants.tensor_share
    per_pass = 1 if layout.parallel_block else 2
    if isinstance(layer.ffn, MoESpec) and layout.expert > 1:
        per_pass = 1
    repeats = 3.0 if layout.recompute == "full" else 2.0
    total_s = per_pass * repeats * once_s
    if layout.tensor_overlap:
        return total_s - constants.tensor_hidden * min(total_s, kernels_s / 2)
    return total_s


def context_seconds(
    layer: LayerSpec,
    layout: TrainingLayout,
    cluster: Cluster,
    attention_s: float,
    constants: TrainingConstants,
) -> float:
    """Keys and values travel around the ring while attention computes on the previous block."""
    if layout.context == 1:
        return 0.0
    mixer = layer.mixer
    if isinstance(mixer, AttentionSpec):
        width = 2.0 * max(mixer.kv_dim / layout.tensor, mixer.head_dim)
    elif isinstance(mixer, MLASpec):
        width = mixer.num_heads * (mixer.head_dim + mixer.value_head_dim) / layout.tensor
    else:
        return 0.0
    local = layout.micro_batch * layout.length / layout.context * width * 2.0
    num_bytes = local * layout.context
    stride = layout.tensor
    gather = choose("all_gather", num_bytes, cluster, layout.context, stride=stride).seconds
    # Forward once; backward moves keys, values and their gradients.
    total_s = 3.0 * gather
    hideable = attention_s * (1.0 + constants.attention_backward)
    return max(0.0, total_s - hideable) + constants.overlap_loss * min(total_s, hideable)


def expert_seconds(
    layer: LayerSpec,
    dim: int,
    layout: TrainingLayout,
    cluster: Cluster,
    constants: TrainingConstants,
    kernels_s: float,
) -> float:
    """Dispatch and combine, forward and backward."""
    ffn = layer.ffn
    if not isinstance(ffn, MoESpec) or layout.expert == 1:
        return 0.0
    sources = layout.shard.within_expert / layout.tensor
    tokens = layout.micro_batch * layout.length / layout.context * sources
    # A token travels once to a node however many of its experts live there.
    span = cluster.span(layout.expert, 1)
    copies = min(ffn.top_k, span.across) if span.across > 1 else ffn.top_k
    inner = tokens * ffn.top_k * dim * 2.0
    outer = tokens * copies * dim * 2.0
    inside_s = choose("all_to_all", inner, cluster.with_devices(span.inside), span.inside).seconds
    across_s = 0.0
    if span.across > 1:
        leaving = outer * (span.across - 1) / span.across
        across_s = cluster.scale_out.seconds(leaving, steps=span.across - 1)
    once_s = max(inside_s, across_s) / constants.all_to_all_share
    repeats = 6.0 if layout.recompute == "full" else 4.0
    total_s = repeats * once_s
    if layout.overlap and layout.pipeline > 1 and layout.chunks > 1:
        total_s -= constants.expert_hidden * min(total_s, kernels_s)
    return total_s + repeats / 2.0 * constants.expert_host_s


def pipeline_seconds(
    spec: ModelSpec, layout: TrainingLayout, cluster: Cluster, constants: TrainingConstants
) -> float:
    """Messages between stages; each rank sends its slice and some wait."""
    if layout.pipeline == 1:
        return 0.0
    num_bytes = layout.micro_batch * layout.length / layout.context * spec.dim * 2.0
    if layout.sequence_parallel:
        num_bytes /= layout.tensor
    stride = layout.tensor * layout.context * layout.data
    stride = layout.tensor if cluster.num_devices <= cluster.devices_per_node else stride
    once_s = send_seconds(num_bytes, cluster, stride=max(stride, 1))
    waiting = 2.0 * (layout.pipeline - 1) + 2.0 * constants.send_exposed * (
        layout.num_micro * layout.chunks
    )
    return waiting * once_s


def data_seconds(
    kernels_s: float,
    weights: RankWeights,
    layout: TrainingLayout,
    cluster: Cluster,
    constants: TrainingConstants,
) -> float:
    """Gradients are reduced and sharded weights gathered, behind the passes if they overlap."""
    dense_s = _reduce_seconds(
        weights.dense, layout, cluster, layout.data * layout.context, layout.tensor, constants
    )
    experts_s = 0.0
    if weights.experts:
        experts_s = _reduce_seconds(
            weights.experts, layout, cluster, layout.num_expert_shards,
            layout.expert * layout.shard.within_expert, constants,
        )  # fmt: skip
    total_s = dense_s + experts_s
    if total_s == 0.0:
        return 0.0
    # Fully sharded weights are gathered for every micro batch, gradients reduced with the last.
    repeats = layout.num_micro if layout.zero == 3 else 1
    if not layout.overlap:
        return total_s * repeats
    hideable = kernels_s if layout.zero == 3 else constants.reduce_window * kernels_s
    exposed = max(0.0, total_s - hideable) + constants.overlap_loss * min(total_s, hideable)
    return exposed * repeats


def _reduce_seconds(
    weights: float,
    layout: TrainingLayout,
    cluster: Cluster,
    num_replicas: int,
    stride: int,
    constants: TrainingConstants,
) -> float:
    if num_replicas == 1 or layout.frozen:
        return 0.0
    nodes = cluster.span(num_replicas, stride).across
    cluster = _crowded(cluster, nodes, constants)
    size = min(num_replicas, layout.shard_size or num_replicas)
    if layout.zero == 3:
        gather = choose("all_gather", 2.0 * weights, cluster, size, stride=stride).seconds
        scatter = choose("reduce_scatter", 2.0 * weights, cluster, size, stride=stride).seconds
        return 2.0 * gather + scatter
    if layout.zero == 0:
        num_bytes = layout.gradient_bytes * weights
        return choose("all_reduce", num_bytes, cluster, num_replicas, stride=stride).seconds
    reduce_bytes = layout.gradient_bytes * weights
    scatter = choose("reduce_scatter", reduce_bytes, cluster, num_replicas, stride=stride).seconds
    return scatter + choose("all_gather", 2.0 * weights, cluster, size, stride=stride).seconds


def _crowded(cluster: Cluster, num_nodes: int, constants: TrainingConstants) -> Cluster:
    """Links between many nodes collide: they lose a little with every doubling."""
    if num_nodes <= 1:
        return cluster
    link = cluster.scale_out
    share = link.share / (1.0 + constants.network_decay * math.log2(num_nodes))
    return replace(cluster, scale_out=replace(link, share=share))
