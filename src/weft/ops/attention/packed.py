"""Packed documents as few batched SDPA calls: documents of equal length share one.

T tokens, N query heads, K key-value heads, H head width, B documents, L their length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.ops.attention.reference import causal_mask


def packed_attention(
    q_TNH: Tensor,
    k_TKH: Tensor,
    v_TKH: Tensor,
    lengths: tuple[int, ...],
    scale: float,
    window: int | None,
) -> Tensor:
    """Attend causally within each document of a packed batch."""
    if len(set(lengths)) == 1:
        return attend_equal(q_TNH, k_TKH, v_TKH, lengths[0], scale, window)
    runs = equal_runs(lengths)
    sizes = [run.num_documents * run.length for run in runs]
    q_runs, k_runs, v_runs = (t.split(sizes) for t in (q_TNH, k_TKH, v_TKH))
    outputs: list[Tensor | None] = [None] * len(runs)
    for length in dict.fromkeys(run.length for run in runs):
        members = [i for i, run in enumerate(runs) if run.length == length]
        q, k, v = (_join([t[i] for i in members]) for t in (q_runs, k_runs, v_runs))
        out = attend_equal(q, k, v, length, scale, window)
        parts = out.split([sizes[i] for i in members])
        for i, part in zip(members, parts, strict=True):
            outputs[i] = part
    return torch.cat([out for out in outputs if out is not None])


def attend_equal(
    q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, length: int, scale: float, window: int | None
) -> Tensor:
    """Attend within documents that all have the same length."""
    if q_TNH.shape[0] == 0:
        return q_TNH.new_empty(q_TNH.shape)
    q, k, v = (t.unflatten(0, (-1, length)).transpose(1, 2) for t in (q_TNH, k_TKH, v_TKH))
    mask = None
    if window is not None and window < length:
        mask = causal_mask(length, length, window, q.device)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return out.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Run:
    """Neighbouring documents of equal length."""

    length: int
    num_documents: int


def equal_runs(lengths: Sequence[int]) -> list[Run]:
    """Return the runs of neighbouring equal lengths.

    >>> equal_runs([3, 3, 5])
    [Run(length=3, num_documents=2), Run(length=5, num_documents=1)]
    """
    runs: list[Run] = []
    for length in lengths:
        if runs and runs[-1].length == length:
            runs[-1] = Run(length, runs[-1].num_documents + 1)
        else:
            runs.append(Run(length, 1))
    return runs


def _join(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
