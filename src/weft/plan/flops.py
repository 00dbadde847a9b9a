"""Floating-point operations: a multiply-add counts as two.

Matrix products only, as torch's own counter does; norms, rotations and softmax are below 2 %.
Convention of the backward pass: twice the forward (Kaplan et al. 2020, arXiv:2001.08361).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weft.plan.parameters import count_parameters
from weft.spec import AttentionSpec, ModelSpec


@dataclass(frozen=True)
class FlopCount:
    """Forward FLOPs by part.

    Attributes:
        linear: Projections of mixers and feed-forward parts.
        attention: Query-key and score-value products.
        head: The output projection.
    """

    linear: int
    attention: int
    head: int

    @property
    def total(self) -> int:
        return self.linear + self.attention + self.head


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
    counts = count_parameters(spec)
    biases_and_norms = _not_multiplied(spec)
    attention = sum(
        4 * layer.mixer.query_dim * attended_pairs(layer.mixer, length, causal=causal)
        for layer in spec.layers
        for length in lengths
    )
    return FlopCount(
        linear=2 * (counts.matmul - biases_and_norms) * num_tokens,
        attention=attention,
        head=2 * spec.vocab_size * spec.dim * (num_tokens if num_logits is None else num_logits),
    )


def training_flops(spec: ModelSpec, lengths: Sequence[int], *, causal: bool = True) -> int:
    """Count forward and backward of one batch: three forward passes."""
    return 3 * forward_flops(spec, lengths, causal=causal).total


def attended_pairs(spec: AttentionSpec, length: int, *, causal: bool) -> int:
    """Count (query, key) pairs of one document.

    >>> attended_pairs(AttentionSpec(1, 1, 2), 4, causal=True)
    10
    """
    if not causal:
        return length * length
    if spec.window is None or spec.window >= length:
        return length * (length + 1) // 2
    return spec.window * (spec.window + 1) // 2 + (length - spec.window) * spec.window


def _not_multiplied(spec: ModelSpec) -> int:
    """Parameters inside mixers and feed-forward parts that are no matrices."""
    count = 0
    for layer in spec.layers:
        mixer, ffn = layer.mixer, layer.ffn
        count += (mixer.query_dim + 2 * mixer.kv_dim) * mixer.qkv_bias + spec.dim * mixer.out_bias
        count += 2 * mixer.head_dim * (mixer.qk_norm == "head")
        count += (ffn.hidden_dim * (2 if ffn.gated else 1) + spec.dim) * ffn.bias
    return count
