"""The public ops. T tokens, D width, N query heads, K key-value heads, H head width,
F inner width, R rotary pairs, S keys or cache slots, V vocabulary or width of a value head.

Each function checks nothing a model cannot get wrong and hands over to its ``KernelSpec``.
"""

from __future__ import annotations

from operator import le
from typing import Literal

import torch
from torch import Tensor

from weft.ops.attention.layout import PagedLayout
from weft.ops.attention.rule import ScoreRule
from weft.ops.loss.chunked import NO_TOKEN
from weft.ops.loss.rows import softmax_stats
from weft.ops.registry import (
    GROUPED_LINEAR,
    LINEAR,
    LINEAR_CROSS_ENTROPY,
    LINEAR_LOG_PROBS,
    PACKED_ATTENTION,
    PAGED_ATTENTION,
    RMS_NORM,
    ROTARY,
    SWIGLU,
)
from weft.ops.scaled_rows import Rows


def linear(x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """Return ``x W^T + b``, [..., F], under autocast in its type."""
    return LINEAR(x_TD, weight_FD, bias_F)


def grouped_linear(
    x_AD: Tensor, weight_EFD: Tensor, bias_EF: Tensor | None, counts_E: Tensor
) -> Tensor:
    """Map rows sorted by expert, each by its expert's matrix, [A, F], under autocast in its type.

    The first ``counts_E[0]`` of the A rows belong to expert 0, the next to expert 1, and so on.

    Source: Gale et al. 2022, arXiv:2211.15841 (dropless mixtures of experts).
    """
    device = x_AD.device.type
    if x_AD.is_meta or not torch.is_autocast_enabled(device):
        return GROUPED_LINEAR(x_AD, weight_EFD, bias_EF, counts_E)
    dtype = torch.get_autocast_dtype(device)
    bias_EF = None if bias_EF is None else bias_EF.to(dtype)
    with torch.autocast(device, enabled=False):
        return GROUPED_LINEAR(x_AD.to(dtype), weight_EFD.to(dtype), bias_EF, counts_E)


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
    k_SKH: Tensor,
    v_SKV: Tensor,
    lengths: tuple[int, ...],
    rule: ScoreRule,
    *,
    key_lengths: tuple[int, ...] | None = None,
) -> Tensor:
    """Attend inside each document of a packed batch, [T, N, V].

    ``lengths`` are the documents' numbers of queries and sum to T, ``key_lengths`` of keys and
    sum to S: none means as many, others are for attention to another sequence or to a memory
    before the queries. A causal rule needs no fewer keys than queries. ``rule`` says what scores
    become. Query head n reads key-value head ``n // (N / K)``; values may have another width than
    keys.
    """
    key_lengths = lengths if key_lengths is None else key_lengths
    assert sum(lengths) == q_TNH.shape[0], (lengths, q_TNH.shape)
    assert sum(key_lengths) == k_SKH.shape[0], (key_lengths, k_SKH.shape)
    assert not rule.causal or all(map(le, lengths, key_lengths)), (lengths, key_lengths)
    return PACKED_ATTENTION(q_TNH, k_SKH, v_SKV, lengths, key_lengths, rule)


def paged_attention(
    q_TNH: Tensor, k_SKH: Rows, v_SKV: Rows, layout: PagedLayout, rule: ScoreRule
) -> Tensor:
    """Attend from each sequence's new tokens to its cached positions, [T, N, V].

    The step's own keys and values must already be in the cache: [num_slots, K, H] and
    [num_slots, K, V], quantized or not. ``rule`` says what scores become.

    Source: Kwon et al. 2023, arXiv:2309.06180.
    """
    return PAGED_ATTENTION(q_TNH, k_SKH, v_SKV, layout, rule)


def linear_cross_entropy(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    *,
    chunk_size: int = 512,
    ignore_index: int = -100,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (summed negative log-likelihood in nats, number of labels that count).

    Both are scalars on the device: float32 (float64 for float64 input) and int64. Logits
    exist for ``chunk_size`` tokens at a time and softmax is float32. ``softcap`` squeezes the
    logits first (``soft_cap``).
    """
    return LINEAR_CROSS_ENTROPY(hidden_TD, weight_VD, labels_T, chunk_size, ignore_index, softcap)


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
    softcap: float | None = None,
) -> Tensor:
    """Return the log-probability of each target under softmax(logits / temperature), [T].

    Float32 and differentiable; logits exist for ``chunk_size`` tokens at a time. ``softcap``
    squeezes them before the temperature divides them.
    """
    return LINEAR_LOG_PROBS(hidden_TD, weight_VD, targets_T, temperature, chunk_size, softcap)
