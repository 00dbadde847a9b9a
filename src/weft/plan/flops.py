"""Floating-point operations: a multiply-add counts as two.

Matrix products only, as torch's own counter does; norms, rotations and softmax are below 2 %.
Conventions: a backward pass is twice the forward (Kaplan et al. 2020, arXiv:2001.08361); latent
attention expands its latents (training); a recurrence is counted token by token, as products with
its state: the chunked forms that run in training do more work in fewer passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

from weft.plan.matrices import layer_matrices
from weft.spec import (
    AttentionSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LayerSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    MLASpec,
    ModelSpec,
    MoESpec,
    RWKVSpec,
    ShortConvSpec,
)


@dataclass(frozen=True)
class FlopCount:
    """Forward FLOPs by part.

    Attributes:
        linear: Projections of mixers and feed-forward parts, routers included.
        attention: Query-key and score-value products, an indexer's too.
        head: The output projection.
        recurrence: Products with states, and short convolutions.
    """

    linear: int
    attention: int
    head: int
    recurrence: int = 0

    @property
    def total(self) -> int:
        return self.linear + self.attention + self.head + self.recurrence


def forward_flops(
    spec: ModelSpec,
    lengths: Sequence[int],
    *,
    causal: bool = True,
    num_logits: int | None = None,
) -> FlopCount:
    """Count one forward pass over documents of these lengths.

    Args:
        spec: The model.
        lengths: Tokens of each document; attention stays inside a document.
        causal: Count only the pairs a causal mask keeps; torch's counter counts all.
        num_logits: Tokens that are projected to the vocabulary; none means all.
    """
    num_tokens = sum(lengths)
    linear = attention = recurrence = 0
    for layer, count in Counter(spec.layers).items():
        linear += 2 * count * active_weights(layer, spec.dim) * num_tokens
        if isinstance(layer.ffn, MoESpec) and layer.ffn.router.kind == "soft":
            linear += count * sum(soft_flops(layer.ffn, spec.dim, length) for length in lengths)
        attention += count * sum(
            attention_flops(layer.mixer, length, causal=causal) for length in lengths
        )
        recurrence += count * recurrence_flops(layer.mixer)
    return FlopCount(
        linear=linear,
        attention=attention,
        head=2 * spec.vocab_size * spec.dim * (num_tokens if num_logits is None else num_logits),
        recurrence=recurrence * num_tokens,
    )


def training_flops(spec: ModelSpec, lengths: Sequence[int], *, causal: bool = True) -> int:
    """Count forward and backward of one batch: three forward passes, MTP modules included."""
    forward = forward_flops(spec, lengths, causal=causal).total
    return 3 * (forward + mtp_flops(spec, lengths, causal=causal))


def mtp_flops(spec: ModelSpec, lengths: Sequence[int], *, causal: bool = True) -> int:
    """Count the multi-token prediction modules: a block like the last, a projection, the head."""
    block = replace(spec, layers=spec.layers[-1:], num_mtp_layers=0)
    once = forward_flops(block, lengths, causal=causal).total
    return spec.num_mtp_layers * (once + 2 * 2 * spec.dim * spec.dim * sum(lengths))


def active_weights(layer: LayerSpec, dim: int) -> int:
    """Count the numbers of all matrices that multiply one token, of its experts only.

    The experts of a soft mixture multiply slots, whose number does not grow with the tokens.
    """
    soft = isinstance(layer.ffn, MoESpec) and layer.ffn.router.kind == "soft"
    return sum(
        matrix.inner * matrix.columns * ((0 if soft else matrix.top_k) if matrix.num_experts else 1)
        for matrix in layer_matrices(layer, dim)
    )


def soft_flops(ffn: MoESpec, dim: int, length: int) -> int:
    """Count a soft mixture on one sequence: into the slots, the experts, back to the tokens."""
    num_slots = ffn.num_experts * ffn.router.num_slots
    inner = ffn.expert.hidden_dim * (3 if ffn.expert.gated else 2)
    return 4 * length * num_slots * dim + 2 * num_slots * inner * dim


def attended_pairs(spec: AttentionSpec | MLASpec, length: int, *, causal: bool) -> int:
    """Count (query, key) pairs of one document.

    >>> attended_pairs(AttentionSpec(1, 1, 2), 4, causal=True)
    10
    """
    if not causal or (isinstance(spec, AttentionSpec) and not spec.causal):
        return length * length
    return _pairs(length, _reach(spec))


def _reach(spec: AttentionSpec | MLASpec) -> int | None:
    """Most positions a token sees; none means all before it."""
    if isinstance(spec, AttentionSpec):
        return spec.window
    return None if spec.indexer is None else spec.indexer.top_k


def _pairs(length: int, reach: int | None) -> int:
    if reach is None or reach >= length:
        return length * (length + 1) // 2
    return reach * (reach + 1) // 2 + (length - reach) * reach


@singledispatch
def attention_flops(mixer: object, length: int, *, causal: bool) -> int:
    """Count the products of queries, keys and values of one document; 0 for recurrences."""
    return 0


@attention_flops.register
def _(mixer: AttentionSpec, length: int, *, causal: bool) -> int:
    return 4 * mixer.query_dim * attended_pairs(mixer, length, causal=causal)


@attention_flops.register
def _(mixer: MLASpec, length: int, *, causal: bool) -> int:
    pairs = attended_pairs(mixer, length, causal=causal)
    flops = 2 * mixer.num_heads * (mixer.head_dim + mixer.value_head_dim) * pairs
    if mixer.indexer is not None:  # it scores every position before it can choose
        scored = _pairs(length, None) if causal else length * length
        # A product per head, then the weighted sum over heads.
        flops += 2 * mixer.indexer.num_heads * (mixer.indexer.head_dim + 1) * scored
    return flops


@singledispatch
def recurrence_flops(mixer: object) -> int:
    """Count the products of one token with the mixer's state, and its short convolution."""
    return 0


@recurrence_flops.register
def _(mixer: LinearAttentionSpec) -> int:
    # Outer product of key and value, query times state; the normaliser is one more column.
    columns = mixer.value_dim + mixer.normalise
    return 4 * mixer.num_heads * mixer.key_dim * columns


@recurrence_flops.register
def _(mixer: GatedDeltaNetSpec) -> int:
    # What the state holds for the key, the outer product that corrects it, the query's reading.
    state = 6 * mixer.num_value_heads * mixer.key_dim * mixer.value_dim
    return state + 2 * mixer.conv_dim * mixer.conv_kernel


@recurrence_flops.register
def _(mixer: KimiDeltaSpec) -> int:
    inner = mixer.num_heads * mixer.head_dim
    return 6 * inner * mixer.head_dim + 2 * 3 * inner * mixer.conv_kernel


@recurrence_flops.register
def _(mixer: MambaSpec) -> int:
    return mixer.inner_dim * (4 * mixer.state_dim + 2 * mixer.conv_kernel)


@recurrence_flops.register
def _(mixer: Mamba2Spec) -> int:
    return 4 * mixer.inner_dim * mixer.state_dim + 2 * mixer.conv_dim * mixer.conv_kernel


@recurrence_flops.register
def _(mixer: RWKVSpec) -> int:
    return 0  # its average is taken number by number


@recurrence_flops.register
def _(mixer: MatrixRWKVSpec) -> int:
    return 4 * mixer.inner_dim * mixer.head_dim


@recurrence_flops.register
def _(mixer: ShortConvSpec) -> int:
    return 2 * mixer.dim * mixer.kernel
