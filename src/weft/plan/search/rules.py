"""What makes a training layout impossible, whatever the memory."""

from __future__ import annotations

from functools import lru_cache

from weft.plan.accounting import distinct_layers
from weft.plan.layout import TrainingLayout
from weft.spec import AttentionSpec, MLASpec, MLPSpec, ModelSpec, MoESpec

# A shorter piece of a sequence leaves attention too little to hide its exchange behind.
_LEAST_PIECE = 256


@lru_cache(maxsize=64)
def head_counts(spec: ModelSpec) -> tuple[int, ...]:
    """Return the numbers of query heads of the layers."""
    mixers = (layer.mixer for layer in distinct_layers(spec))
    return tuple({m.num_heads for m in mixers if isinstance(m, AttentionSpec | MLASpec)})


@lru_cache(maxsize=64)
def hidden_dims(spec: ModelSpec) -> tuple[int, ...]:
    """Return the widths of the dense feed-forward parts."""
    ffns = (layer.ffn for layer in distinct_layers(spec))
    return tuple({ffn.hidden_dim for ffn in ffns if isinstance(ffn, MLPSpec)})


@lru_cache(maxsize=64)
def expert_count(spec: ModelSpec) -> int:
    """Return the experts of a mixture layer; 0 if there is none."""
    ffns = (layer.ffn for layer in distinct_layers(spec))
    return max((ffn.num_experts for ffn in ffns if isinstance(ffn, MoESpec)), default=0)


def tensor_rule(spec: ModelSpec, size: int, devices_per_node: int) -> str:
    """Return why matrices cannot be cut this often; empty if they can."""
    if size > devices_per_node:
        return "tp reaches beyond a node"
    if any(count % size for count in head_counts(spec)):
        return "tp does not divide the heads"
    if any(width % size for width in hidden_dims(spec)):
        return "tp does not divide the feed-forward width"
    return ""


def expert_rule(spec: ModelSpec, layout: TrainingLayout) -> str:
    """Return why experts cannot lie so; empty if they can."""
    if layout.expert == 1:
        return ""
    if expert_count(spec) == 0:
        return "ep needs a mixture of experts"
    if expert_count(spec) % layout.expert:
        return "ep does not divide the experts"
    ranks = layout.data * layout.context * layout.tensor
    if ranks % (layout.expert * layout.shard.within_expert):
        return "ep does not divide the ranks of a stage"
    return ""


def rule(spec: ModelSpec, layout: TrainingLayout, devices_per_node: int) -> str:
    """Return why a layout is impossible; empty if it is possible."""
    reason = tensor_rule(spec, layout.tensor, devices_per_node) or expert_rule(spec, layout)
    if reason:
        return reason
    if layout.pipeline * layout.chunks > spec.num_layers:
        return "more stages than layers"
    if layout.chunks > 1 and (layout.pipeline == 1 or layout.num_micro % layout.pipeline):
        return "interleaving needs micro batches in multiples of pp"
    if layout.length % (2 * layout.context) or layout.length < _LEAST_PIECE * layout.context:
        return "cp leaves too short a piece of a sequence"
    if layout.recompute == "selective" and layout.attention != "scores" and layout.zero < 3:
        return "fused attention leaves selective recomputation nothing to save"
    if layout.global_batch % (layout.data * layout.micro_batch):
        return "the batch does not divide into micro batches"
    return ""
