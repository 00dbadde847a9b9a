"""The memory of one device in training, by purpose, under every layout.

Weights, gradients and optimizer follow the layout's ZeRO stage; activations are counted from the
tensors a layer's backward pass reads, under the chosen recomputation, for as many micro batches
as the pipeline holds at once; logits, communication buffers and what the runtime itself takes
are added. Closed forms of papers (``weft.plan.gpt_activations``, ``weft.plan.zero``) are what the
counts are tested against. ``weft.plan.memory`` is the ledger of one device without cuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from weft.core.console import format_bytes
from weft.core.errors import ResourceError
from weft.plan.accounting import distinct_layers
from weft.plan.layout import TrainingLayout
from weft.plan.matrices import layer_matrices
from weft.plan.memory_constants import MemoryConstants, memory_constants
from weft.plan.stages import RankWeights, Stages, all_weights, layer_slices
from weft.plan.zero import StateBytes
from weft.spec import AttentionSpec, LayerSpec, MLASpec, MLPSpec, ModelSpec, MoESpec
from weft.spec.cache import CacheKinds

_GIB = 2**30
# Master copy and two moments in float32.
_OPTIMIZER_BYTES = 12.0


@dataclass(frozen=True)
class TrainingLedger:
    """Bytes on the fullest pipeline rank.

    Attributes:
        weights: The copy that computes, with what is gathered at once.
        gradients: As kept between micro batches.
        optimizer: Master copy and moments.
        activations: What backward passes need.
        logits: Scores of the vocabulary, their float32 copy and gradient.
        communication: Buckets and receive buffers.
        reserve: Runtime and allocator.
        rank: Which pipeline rank.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    communication: float
    reserve: float
    rank: int = 0

    @property
    def total(self) -> float:
        return self.states + self.activations + self.logits + self.communication + self.reserve

    @property
    def states(self) -> float:
        """Weights, gradients and optimizer."""
        return self.weights + self.gradients + self.optimizer

    def parts(self) -> dict[str, float]:
        """Return bytes by purpose."""
        names = ("weights", "gradients", "optimizer", "activations", "logits", "communication",
                 "reserve")  # fmt: skip
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Fit:
    """Whether a layout fits, and what would make it fit.

    Attributes:
        ledger: What it takes.
        available_bytes: What there is.
        change: The cheapest change that makes it fit; empty if it fits or nothing helps.
        layout: The changed layout; none if it fits or nothing helps.
    """

    ledger: TrainingLedger
    available_bytes: float
    change: str = ""
    layout: TrainingLayout | None = None

    @property
    def fits(self) -> bool:
        return self.ledger.total <= self.available_bytes

    @property
    def missing_bytes(self) -> float:
        """Bytes too many; negative is room left."""
        return self.ledger.total - self.available_bytes

    def require(self) -> None:
        """Refuse what does not fit.

        Raises:
            ResourceError: by how much, what takes most, and the cheapest change.
        """
        if self.fits:
            return
        parts = self.ledger.parts()
        largest = max(parts, key=lambda name: parts[name])
        raise ResourceError(
            f"pipeline rank {self.ledger.rank} needs {_text(self.ledger.total)}, "
            f"{_text(self.missing_bytes)} more than the {_text(self.available_bytes)} there; "
            f"{largest} take {_text(parts[largest])}",
            fix=self.change or "use more devices; no single change of the layout is enough",
        )


def _text(size: float) -> str:
    return format_bytes(int(size))


@lru_cache(maxsize=8192)
def training_ledger(
    spec: ModelSpec, layout: TrainingLayout, constants: MemoryConstants | None = None
) -> TrainingLedger:
    """Return the memory of the fullest pipeline rank; ``constants`` none means the shipped ones."""
    ranks = (rank_ledger(spec, layout, rank, constants) for rank in range(layout.pipeline))
    return max(ranks, key=lambda ledger: ledger.total)


def rank_ledger(
    spec: ModelSpec, layout: TrainingLayout, rank: int, constants: MemoryConstants | None = None
) -> TrainingLedger:
    """Return the memory of one pipeline rank."""
    own, stages = all_weights(spec, layout)[rank], layer_slices(spec, layout)
    return _ledger(spec, layout, rank, stages, own, constants or memory_constants())


def _ledger(
    spec: ModelSpec,
    layout: TrainingLayout,
    rank: int,
    stages: Stages,
    own: RankWeights,
    constants: MemoryConstants,
) -> TrainingLedger:
    state = StateBytes(layout.weight_bytes, layout.gradient_bytes, _OPTIMIZER_BYTES)
    adapters = StateBytes(2.0, layout.gradient_bytes, _OPTIMIZER_BYTES).sharded(
        layout.zero, max(1, layout.num_shards)
    )
    extra = adapter_parameters(spec, layout, rank, stages)
    if layout.frozen:
        state = StateBytes(layout.weight_bytes, 0.0, 0.0)
    plain = state.sharded(layout.zero, max(1, layout.num_shards))
    routed = state.sharded(layout.zero, max(1, layout.num_expert_shards))
    # Fully sharded weights are gathered a layer ahead, with the gradient of one behind.
    gathered = own.largest_layer * (2.0 * 2.0 + layout.gradient_bytes) if layout.zero == 3 else 0.0
    activations = _activations(spec, layout, rank, stages)
    logits = _logits(spec, layout) if rank == layout.pipeline - 1 else 0.0
    return TrainingLedger(
        weights=own.dense * plain.weights
        + own.experts * routed.weights
        + extra * adapters.weights
        + gathered,
        gradients=own.dense * plain.gradients
        + own.experts * routed.gradients
        + extra * adapters.gradients,
        optimizer=own.dense * plain.optimizer
        + own.experts * routed.optimizer
        + extra * adapters.optimizer,
        activations=activations,
        logits=logits,
        communication=_communication(spec, layout, constants),
        reserve=constants.runtime_bytes + constants.slack_share * (activations + logits),
        rank=rank,
    )


def adapter_parameters(spec: ModelSpec, layout: TrainingLayout, rank: int, stages: Stages) -> float:
    """Count the adapters beside the matrices of one rank, two of width ``adapter_rank`` each."""
    if layout.adapter_rank == 0:
        return 0.0
    total = 0.0
    for stage in range(rank, len(stages), layout.pipeline):
        for layer, count in stages[stage].items():
            for matrix in layer_matrices(layer, spec.dim, layout.tensor):
                inner, columns = matrix.local(layout.shard)
                copies = matrix.num_experts / layout.expert if matrix.num_experts else 1.0
                total += count * copies * layout.adapter_rank * (inner + columns)
    return total


def fit_memory(spec: ModelSpec, layout: TrainingLayout, available_bytes: float) -> Fit:
    """Return whether a layout fits and, if not, the cheapest change that makes it fit."""
    ledger = training_ledger(spec, layout)
    if ledger.total <= available_bytes:
        return Fit(ledger, available_bytes)
    for text, changed in _changes(spec, layout):
        if training_ledger(spec, changed).total <= available_bytes:
            return Fit(ledger, available_bytes, text, changed)
    return Fit(ledger, available_bytes)


def _changes(spec: ModelSpec, layout: TrainingLayout) -> list[tuple[str, TrainingLayout]]:
    """Single changes from cheapest to dearest in step time."""
    changes: list[tuple[str, TrainingLayout]] = []
    if layout.tensor > 1 and not layout.sequence_parallel:
        changes.append(("use sequence parallelism", layout.but(sequence_parallel=True)))
    if layout.zero == 0 and layout.num_shards > 1:
        changes.append(("shard the optimizer (ZeRO-1)", layout.but(zero=1)))
    if layout.recompute == "none":
        changes.append(("recompute attention", layout.but(recompute="selective")))
    micro = layout.micro_batch
    while micro > 1:
        micro //= 2
        changes.append((f"lower micro_batch to {micro}", layout.but(micro_batch=micro)))
    if layout.zero in (1, 2) and layout.num_shards > 1 and layout.pipeline == 1:
        changes.append(("shard everything (ZeRO-3)", layout.but(zero=3)))
    if layout.recompute != "full":
        changes += [
            (f"recompute {name} of the layers", layout.but(recompute="full", recompute_share=share))
            for name, share in (("a quarter", 0.25), ("half", 0.5), ("three quarters", 0.75))
        ]
        changes.append(("recompute whole layers", layout.but(recompute="full")))
        changes += [
            (f"recompute whole layers and lower micro_batch to {1}",
             layout.but(recompute="full", micro_batch=1)),
        ]  # fmt: skip
    for axis in ("tensor", "pipeline", "context"):
        for factor in (2, 4, 8):
            size = getattr(layout, axis) * factor
            if layout.data % factor == 0 and _may(spec, axis, size):
                changed = layout.but(**{axis: size, "data": layout.data // factor})
                changes.append((f"raise {axis} parallelism to {size}", changed))
    return changes


def _may(spec: ModelSpec, axis: str, size: int) -> bool:
    if axis == "pipeline":
        return size <= spec.num_layers
    if axis == "tensor":
        heads = [getattr(layer.mixer, "num_heads", 1) for layer in spec.layers]
        return size <= 8 and all(count % size == 0 for count in heads)
    return True


def _activations(spec: ModelSpec, layout: TrainingLayout, rank: int, stages: Stages) -> float:
    chunks = range(rank, len(stages), layout.pipeline)
    kept = working = 0.0
    for stage in chunks:
        for layer, count in stages[stage].items():
            whole = layer_activation_bytes(layer, spec.dim, layout)
            kept += count * _kept_bytes(layer, spec.dim, layout, whole)
            working = max(working, whole)
    # Under 1F1B rank r holds p - r micro batches, interleaved (p - r - 1)/v more (2205.05198).
    held = float(min(layout.num_micro, layout.pipeline - rank))
    if layout.chunks > 1:
        extra = (layout.pipeline - 1 - rank) / layout.chunks
        held = min(float(layout.num_micro), held + extra)
    embedding = _stream_bytes(spec.dim, layout) * held if rank == 0 else 0.0
    return kept * held + embedding + (working if layout.recompute == "full" else 0.0)


def _kept_bytes(layer: LayerSpec, dim: int, layout: TrainingLayout, whole: float) -> float:
    share = layout.recompute_share
    return (1.0 - share) * whole + share * _recomputed_bytes(layer, dim, layout, whole)


def _recomputed_bytes(layer: LayerSpec, dim: int, layout: TrainingLayout, whole: float) -> float:
    """What a layer keeps if the recompute policy applies to it."""
    if layout.recompute == "full":
        return _stream_bytes(dim, layout)
    if layout.recompute == "selective" and layout.zero == 3:
        return (whole + _stream_bytes(dim, layout)) / 2.0
    if layout.recompute == "selective":
        return whole - _score_bytes(layer, layout)
    return whole


def _tokens(layout: TrainingLayout) -> float:
    return layout.micro_batch * layout.length / layout.context


def _stream_bytes(dim: int, layout: TrainingLayout) -> float:
    """A layer's input, in two bytes."""
    cut = layout.tensor if layout.sequence_parallel else 1
    return 2.0 * _tokens(layout) * dim / cut


def _score_bytes(layer: LayerSpec, layout: TrainingLayout) -> float:
    """Scores, softmax and dropout mask: 5as per token where scores lie in memory."""
    if layout.attention != "scores" or not isinstance(layer.mixer, AttentionSpec):
        return 0.0
    heads = layer.mixer.num_heads / layout.tensor
    return 5.0 * heads * layout.length * _tokens(layout)


@lru_cache(maxsize=8192)
def layer_activation_bytes(layer: LayerSpec, dim: int, layout: TrainingLayout) -> float:
    """Return what the backward pass of one layer reads, for one micro batch on one device.

    Per branch: the norm's input and output (two bytes each, cut by sequence parallelism) and,
    where the framework drops out, a mask of one byte; queries, keys, values and the result of
    attention; the inner activation before and after its non-linearity, for every expert a token
    uses. Narrow types keep the inputs of products in one byte.
    """
    narrow = 1.0 if layout.dtype in ("float8", "float4") else 2.0
    cut = layout.tensor if layout.sequence_parallel else 1
    drops = 1.0 if layout.attention == "scores" else 0.0
    branches = 2 if layer.ffn is not None else 1
    stream = branches * dim * (2.0 + narrow + drops) / cut
    inner = _mixer_bytes(layer.mixer, dim, narrow) / layout.tensor
    inner += _ffn_bytes(layer, dim, layout, narrow)
    if layout.adapter_rank:
        inner += 2.0 * layout.adapter_rank * len(layer_matrices(layer, dim, layout.tensor))
    return _tokens(layout) * (stream + inner) + _score_bytes(layer, layout)


def _mixer_bytes(mixer: object, dim: int, narrow: float) -> float:
    if isinstance(mixer, AttentionSpec):
        return 2.0 * (mixer.query_dim + 2 * mixer.kv_dim) + narrow * mixer.query_dim
    if isinstance(mixer, MLASpec):
        latents = (mixer.query_latent_dim or 0) + mixer.kv_latent_dim
        heads = mixer.num_heads * (2 * mixer.head_dim + mixer.value_head_dim)
        return 4.0 * latents + 2.0 * heads + (2.0 + narrow) * mixer.num_heads * mixer.value_head_dim
    state = mixer.state_values if isinstance(mixer, CacheKinds) else 0
    return 16.0 * dim + 4.0 * state / 64


def _ffn_bytes(layer: LayerSpec, dim: int, layout: TrainingLayout, narrow: float) -> float:
    ffn = layer.ffn
    if isinstance(ffn, MLPSpec):
        return _inner_bytes(ffn, narrow) / layout.tensor
    if isinstance(ffn, MoESpec):
        sources = layout.shard.within_expert / layout.tensor
        per_expert = _inner_bytes(ffn.expert, narrow) / layout.shard.within_expert
        width = ffn.latent_dim or dim
        used = ffn.top_k * sources * (per_expert + (narrow + 2.0) * width)
        shared = 0.0 if ffn.shared is None else _inner_bytes(ffn.shared, narrow) / layout.tensor
        return used + shared
    return 8.0 * dim / layout.tensor


def _inner_bytes(ffn: MLPSpec, narrow: float) -> float:
    return ffn.hidden_dim * ((4.0 if ffn.gated else 2.0) + narrow)


def _logits(spec: ModelSpec, layout: TrainingLayout) -> float:
    """Scores in two bytes, their float32 copy and its gradient, and the gradient in two bytes."""
    rows = _tokens(layout)
    return rows * spec.vocab_size / layout.tensor * (2.0 + 4.0 + 4.0 + 2.0)


def _communication(spec: ModelSpec, layout: TrainingLayout, constants: MemoryConstants) -> float:
    parts = (layout.data, layout.tensor, layout.pipeline, layout.context, layout.expert)
    busy = sum(1 for size in parts if size > 1)
    total = constants.bucket_bytes * busy
    if layout.blocking_engine:
        total += constants.engine_bytes
    if layout.expert > 1:
        chosen = (layer.ffn for layer in distinct_layers(spec) if isinstance(layer.ffn, MoESpec))
        top_k = max((ffn.top_k for ffn in chosen), default=0)
        total += 4.0 * _tokens(layout) * spec.dim * top_k
    return total
