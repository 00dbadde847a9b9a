"""The public ops. T tokens, D width, N query heads, K key-value heads, H head width,
F inner width, R rotary pairs, S cache slots, V vocabulary.

Each function checks nothing a model cannot get wrong and hands over to its ``KernelSpec``.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from weft.ops.attention.layout import PagedLayout
from weft.ops.loss.chunked import NO_TOKEN
from weft.ops.loss.rows import softmax_stats
from weft.ops.registry import (
    LINEAR,
    LINEAR_CROSS_ENTROPY,
    LINEAR_LOG_PROBS,
    PACKED_ATTENTION,
    PAGED_ATTENTION,
    RMS_NORM,
    ROTARY,
    SWIGLU,
)


def linear(x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """Return ``x W^T + b``, [..., F], under autocast in its type."""
    return LINEAR(x_TD, weight_FD, bias_F)


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Scale the last axis to unit root mean square, then by a weight.

    Statistics are float32, the result is rounded to ``x``'s type before the weight is applied
    (the order of Hugging Face's Llama) and has ``x``'s type. Any leading axes.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    return RMS_NORM(x_TD, weight_D, eps)


def swiglu(gate_up_T2F: Tensor) -> Tensor:
    """Return ``silu(gate) * up``, [..., F], from merged columns [..., 2 F], gate first.

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    return SWIGLU(gate_up_T2F)


def apply_rotary(
    x_TNH: Tensor, cos_TR: Tensor, sin_TR: Tensor, layout: Literal["half", "interleaved"]
) -> Tensor:
    """Turn pairs of each head's dimensions by their token's angles; [T, N, H] in and out.

    "half" pairs dimension r with r + R (Hugging Face), "interleaved" 2 r with 2 r + 1 (the
    paper). Dimensions beyond 2 R pass unchanged. Products are float32 when the tables are.

    Source: Su et al. 2021, arXiv:2104.09864.
    """
    return ROTARY(x_TNH, cos_TR, sin_TR, layout)


def packed_attention(
    q_TNH: Tensor,
    k_TKH: Tensor,
    v_TKH: Tensor,
    lengths: tuple[int, ...],
    *,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """Attend causally inside each document of a packed batch, [T, N, H].

    ``lengths`` are the documents' lengths and sum to T; ``window`` is how many positions a
    token sees, itself included. Query head n reads key-value head ``n // (N / K)``.
    """
    assert sum(lengths) == q_TNH.shape[0], (lengths, q_TNH.shape)
    return PACKED_ATTENTION(q_TNH, k_TKH, v_TKH, lengths, scale, window)


def paged_attention(
    q_TNH: Tensor,
    k_SKH: Tensor,
    v_SKH: Tensor,
    layout: PagedLayout,
    *,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """Attend from each sequence's new tokens to its cached positions, [T, N, H].

    Inference only. The step's own keys and values must already be in the cache
    [num_slots, K, H].

    Source: Kwon et al. 2023, arXiv:2309.06180.
    """
    return PAGED_ATTENTION(q_TNH, k_SKH, v_SKH, layout, scale, window)


def linear_cross_entropy(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    *,
    chunk_size: int = 512,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """Return (summed negative log-likelihood in nats, number of labels that count).

    Both are scalars on the device: float32 (float64 for float64 input) and int64. Logits
    exist for ``chunk_size`` tokens at a time and softmax is float32.
    """
    return LINEAR_CROSS_ENTROPY(hidden_TD, weight_VD, labels_T, chunk_size, ignore_index)


def row_log_probs(logits_TV: Tensor, targets_T: Tensor, scale_T: Tensor) -> Tensor:
    """Return the log-probability of each row's target under softmax(scale * logits), [T].

    What ``linear_log_probs`` gives where its products are these logits, with a scale (one over
    temperature, float32) per row. Not differentiable.
    """
    return softmax_stats(logits_TV, targets_T.contiguous(), NO_TOKEN, scale_T.contiguous())[1]


def linear_log_probs(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    *,
    temperature: float = 1.0,
    chunk_size: int = 512,
) -> Tensor:
    """Return the log-probability of each target under softmax(logits / temperature), [T].

    Float32 and differentiable; logits exist for ``chunk_size`` tokens at a time.
    """
    return LINEAR_LOG_PROBS(hidden_TD, weight_VD, targets_T, temperature, chunk_size)
