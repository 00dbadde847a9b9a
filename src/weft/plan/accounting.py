"""A model as the list of kernels one device runs, from the same ``ModelSpec`` that is built.

Matrix products come from ``weft.plan.matrices``; around them attention, recurrences, norms and
the traffic of everything that is no product. Equal layers are merged: 126 layers of one kind are
a dozen records with ``count=126``.

FLOPs per token are quoted in three conventions, which ``flops_per_token`` names:

- ``palm``:     six per multiplied weight and every (query, key) pair (Chowdhery et al. 2022).
- ``causal``:   six per multiplied weight and the pairs a causal mask keeps.
- ``hardware``: causal plus what recomputation repeats (Korthikanti et al. 2022).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

from weft.plan.flops import active_weights
from weft.plan.matrices import Matrix, layer_matrices
from weft.plan.mla_mode import prefer_absorbed
from weft.plan.ops import Op, attention, elementwise, gemm
from weft.plan.work import Dtypes, Shard, Work
from weft.spec import (
    AttentionSpec,
    CacheKinds,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LayerSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MLASpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
)

Convention = Literal["palm", "causal", "hardware"]
MLAMode = Literal["auto", "expanded", "absorbed"]

# Tokens per block of chunked recurrences (arXiv:2412.06464 and the kernels in use).
_CHUNK = 64


def model_ops(
    spec: ModelSpec,
    work: Work,
    shard: Shard | None = None,
    dtypes: Dtypes | None = None,
    *,
    mla_mode: MLAMode = "auto",
) -> tuple[Op, ...]:
    """Return every kernel of one forward pass on one device, embedding and head included."""
    shard, dtypes = shard or Shard(), dtypes or Dtypes()
    ops = [embedding_op(spec, work, shard, dtypes)]
    for layer, count in distinct_layers(spec).items():
        layer_list = layer_ops(layer, spec.dim, work, shard, dtypes, mla_mode=mla_mode)
        ops += [op.times(count) for op in layer_list]
    return (*ops, *head_ops(spec, work, shard, dtypes))


def distinct_layers(spec: ModelSpec) -> Counter[LayerSpec]:
    """Return how often each kind of layer occurs, in order of first occurrence."""
    # Hashing a description takes longer than counting it, and most layers are one object.
    groups: dict[int, list[LayerSpec]] = {}
    for layer in spec.layers:
        groups.setdefault(id(layer), []).append(layer)
    counts: Counter[LayerSpec] = Counter()
    for layers in groups.values():
        counts[layers[0]] += len(layers)
    return counts


def embedding_op(spec: ModelSpec, work: Work, shard: Shard, dtypes: Dtypes) -> Op:
    """Return the look-up of the tokens' rows."""
    rows = work.num_tokens / shard.context
    moved = rows * spec.dim * (dtypes.weight_bytes + dtypes.activation_bytes)
    return elementwise("embedding", moved)


def head_ops(spec: ModelSpec, work: Work, shard: Shard, dtypes: Dtypes) -> tuple[Op, ...]:
    """Return the final norm, the output projection and, in training, the loss over the scores."""
    rows = work.logits / (shard.context if work.num_logits is None else 1)
    norm = elementwise("final norm", 2 * rows * spec.dim * dtypes.activation_bytes)
    head = gemm("head", rows, spec.dim, spec.vocab_size / shard.tensor, dtype=dtypes.head)
    if work.num_logits is not None:
        return norm, head
    # The loss reads the scores in float32 for the maximum and for the sum.
    return norm, head, elementwise("loss", 12 * rows * spec.vocab_size / shard.tensor)


@lru_cache(maxsize=8192)
def layer_ops(
    layer: LayerSpec,
    dim: int,
    work: Work,
    shard: Shard,
    dtypes: Dtypes,
    *,
    mla_mode: MLAMode = "auto",
) -> tuple[Op, ...]:
    """Return the kernels of one layer on one device."""
    tokens = work.num_tokens / shard.context
    absorbed = isinstance(layer.mixer, MLASpec) and _is_absorbed(layer.mixer, work, mla_mode)
    ops = [
        _product(matrix, work, tokens, shard, dtypes)
        for matrix in layer_matrices(layer, dim, shard.tensor)
        if not (absorbed and matrix.name == "latent up")
    ]
    core = list(_core(layer.mixer, work, shard, dtypes, absorbed=absorbed))
    return (*ops, *core, *_traffic(layer, dim, tokens, shard, dtypes))


def layer_flops(layer: LayerSpec, dim: int, work: Work) -> float:
    """Return the forward FLOPs of one layer over all devices, products and attention only."""
    ops = layer_ops(layer, dim, work, Shard(), Dtypes(), mla_mode="expanded")
    return sum(op.total_flops for op in ops)


def flops_per_token(
    spec: ModelSpec,
    length: int,
    convention: Convention = "causal",
    *,
    recomputed: float = 0.0,
    include_mtp: bool = False,
) -> float:
    """Return training FLOPs per token, forward and backward.

    Args:
        spec: The model.
        length: Tokens of a sequence.
        convention: See the module. ``causal`` counts half of all pairs, as papers do, not the
            ``T(T + 1)/2`` that a kernel computes.
        recomputed: Share of the layers' forward pass that the backward repeats ("hardware").
        include_mtp: Count multi-token prediction modules: one more layer of the last kind, its
            merging projection and a second use of the head.
    """
    weights, pair_flops = 0.0, 0.0
    for layer, count in distinct_layers(spec).items():
        weights += count * active_weights(layer, spec.dim)
        pair_flops += (
            count * pair_width(layer.mixer) * _pairs_per_token(layer.mixer, length, convention)
        )
    head = float(spec.dim * spec.vocab_size)
    if include_mtp and spec.num_mtp_layers:
        last = spec.layers[-1]
        weights += spec.num_mtp_layers * (active_weights(last, spec.dim) + 2 * spec.dim**2)
        pair_flops += (
            spec.num_mtp_layers
            * pair_width(last.mixer)
            * _pairs_per_token(last.mixer, length, convention)
        )
        head *= 1 + spec.num_mtp_layers
    layers = 2.0 * weights + pair_flops
    factor = 3.0 + (recomputed if convention == "hardware" else 0.0)
    return factor * layers + 3.0 * 2.0 * head


def pair_width(mixer: object) -> float:
    """Return forward FLOPs per (query, key) pair over all heads, 0 for recurrences."""
    if isinstance(mixer, AttentionSpec):
        return 4.0 * mixer.query_dim
    if isinstance(mixer, MLASpec):
        return 2.0 * mixer.num_heads * (mixer.head_dim + mixer.value_head_dim)
    return 0.0


def _pairs_per_token(mixer: object, length: int, convention: Convention) -> float:
    window = mixer.window if isinstance(mixer, AttentionSpec) else None
    if convention == "palm":
        return float(length if window is None else min(window, length))
    if window is None or window >= length:
        return length / 2
    return window - window * window / (2 * length)


def _is_absorbed(mixer: MLASpec, work: Work, mode: MLAMode) -> bool:
    if mode != "auto":
        return mode == "absorbed"
    new = max(segment.new for segment in work.segments)
    cached = max(segment.cached for segment in work.segments)
    return prefer_absorbed(
        new,
        cached,
        kv_rank=mixer.kv_latent_dim,
        nope_dim=mixer.nope_head_dim,
        value_dim=mixer.value_head_dim,
    )


def _product(matrix: Matrix, work: Work, tokens: float, shard: Shard, dtypes: Dtypes) -> Op:
    inner, columns = matrix.local(shard)
    rows, groups = tokens, 1.0
    if matrix.num_experts:
        # Devices of a tensor group hold the same tokens, of an expert group different ones.
        sources = shard.within_expert / shard.tensor
        rows = tokens * matrix.top_k * sources
        groups = _experts_used(matrix, tokens * shard.expert * sources) / shard.expert
    elif matrix.name == "latent up":
        rows = work.context_tokens() / shard.context
    return gemm(
        matrix.name,
        rows,
        inner,
        columns,
        dtype=dtypes.compute,
        weight_dtype=dtypes.weights,
        activation_bytes=dtypes.activation_bytes,
        groups=groups,
    )


def _experts_used(matrix: Matrix, num_tokens: float) -> float:
    """Expected experts with at least one token when routing is balanced."""
    share = matrix.top_k / matrix.num_experts
    return max(1.0, matrix.num_experts * (1.0 - (1.0 - share) ** num_tokens))


def _core(
    mixer: object, work: Work, shard: Shard, dtypes: Dtypes, *, absorbed: bool
) -> Iterator[Op]:
    if isinstance(mixer, AttentionSpec):
        heads = mixer.num_heads / shard.tensor
        kv_heads = max(1.0, mixer.num_kv_heads / shard.tensor)
        context = work.context_tokens(mixer.window) / shard.context
        yield attention(
            "attention",
            pairs=work.pairs(mixer.window) / shard.context,
            num_heads=heads,
            qk_dim=mixer.head_dim,
            v_dim=mixer.head_dim,
            query_tokens=work.num_tokens / shard.context,
            kv_bytes=context * 2 * kv_heads * mixer.head_dim * dtypes.kv_bytes,
        )
    elif isinstance(mixer, MLASpec):
        yield from _latent_core(mixer, work, shard, dtypes, absorbed=absorbed)
    else:
        yield from _scan(mixer, work, shard)


def _latent_core(
    mixer: MLASpec, work: Work, shard: Shard, dtypes: Dtypes, *, absorbed: bool
) -> Iterator[Op]:
    heads = mixer.num_heads / shard.tensor
    latent = mixer.kv_latent_dim + mixer.rope_head_dim
    context = work.context_tokens() / shard.context
    tokens = work.num_tokens / shard.context
    pairs = work.pairs() / shard.context
    if mixer.indexer is not None:
        index = mixer.indexer
        yield attention(
            "indexer", pairs=pairs, num_heads=index.num_heads, qk_dim=index.head_dim, v_dim=0,
            query_tokens=tokens, kv_bytes=context * index.head_dim,
        )  # fmt: skip
        pairs = work.pairs(index.top_k) / shard.context
        context = min(context, tokens * index.top_k)
    if absorbed:
        # Queries go into the latent and results come out of it: rows per head are tokens.
        widths = mixer.nope_head_dim + mixer.value_head_dim
        yield gemm(
            "absorb", tokens, mixer.kv_latent_dim, widths * heads, dtype=dtypes.compute,
            weight_dtype=dtypes.weights,
        )  # fmt: skip
        qk_dim, v_dim, per_token = latent, mixer.kv_latent_dim, latent * dtypes.kv_bytes
    else:
        qk_dim, v_dim = mixer.head_dim, mixer.value_head_dim
        per_token = heads * (qk_dim + v_dim) * dtypes.activation_bytes
    yield attention(
        "attention", pairs=pairs, num_heads=heads, qk_dim=qk_dim, v_dim=v_dim,
        query_tokens=tokens, kv_bytes=context * per_token,
    )  # fmt: skip


def _scan(mixer: object, work: Work, shard: Shard) -> Iterator[Op]:
    """A recurrence: per token a few products with its state, which moves once per block."""
    heads, key_dim, value_dim = _state_shape(mixer)
    heads /= shard.tensor
    tokens = work.num_tokens / shard.context
    states = sum(-(-segment.new // _CHUNK) * segment.count for segment in work.segments)
    state_bytes = 4.0 * _state_values(mixer) / shard.tensor
    block = min(_CHUNK, max(segment.new for segment in work.segments))
    per_token = 6.0 * key_dim * value_dim + 2.0 * block * (key_dim + value_dim)
    moved = 2.0 * states * state_bytes + tokens * heads * (2 * key_dim + 3 * value_dim) * 2.0
    flops = tokens * heads * per_token if key_dim > 1 else 0.0
    yield Op("scan", "attention", flops=flops, memory_bytes=moved)


def _state_shape(mixer: object) -> tuple[float, float, float]:
    if isinstance(mixer, GatedDeltaNetSpec):
        return mixer.num_value_heads, mixer.key_dim, mixer.value_dim
    if isinstance(mixer, KimiDeltaSpec):
        return mixer.num_heads, mixer.head_dim, mixer.head_dim
    if isinstance(mixer, Mamba2Spec):
        return mixer.num_heads, mixer.state_dim, mixer.head_dim
    if isinstance(mixer, LinearAttentionSpec):
        return mixer.num_heads, mixer.key_dim, mixer.value_dim
    return 1.0, 1.0, 1.0


def _state_values(mixer: object) -> int:
    return mixer.state_values if isinstance(mixer, CacheKinds) else 0


def _traffic(
    layer: LayerSpec, dim: int, tokens: float, shard: Shard, dtypes: Dtypes
) -> Iterator[Op]:
    """Kernels that only move numbers: norms and residual sums, rotations, activations."""
    size = dtypes.activation_bytes
    cut = shard.tensor if shard.sequence else 1
    branches = 2 if layer.ffn is not None else 1
    num_norms = branches * (2 if layer.norms == "sandwich" else 1)
    # A norm reads and writes the stream; a residual sum reads two and writes one.
    yield elementwise("norms", tokens * dim * size * (2 * num_norms + 3 * branches) / cut)
    mixer, ffn = layer.mixer, layer.ffn
    if isinstance(mixer, AttentionSpec) and mixer.rotary is not None:
        width = (mixer.query_dim + mixer.kv_dim) / shard.tensor
        yield elementwise("rotary", 2 * tokens * width * size)
    if isinstance(ffn, MLPSpec):
        yield elementwise("activation", tokens * _inner(ffn) / shard.tensor * size)
    elif isinstance(ffn, MoESpec):
        width = _inner(ffn.expert) * ffn.top_k / shard.within_expert
        if ffn.shared is not None:
            width += _inner(ffn.shared) / shard.tensor
        # Tokens are gathered for their experts and scattered back, weighted.
        moved = width + 2 * (ffn.top_k + 1) * (ffn.latent_dim or dim)
        yield elementwise("activation and routing", tokens * moved * size)


def _inner(ffn: MLPSpec) -> float:
    """Numbers the activation reads and writes per token."""
    return ffn.hidden_dim * (3 if ffn.gated else 2)
