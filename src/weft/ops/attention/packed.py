"""Packed documents as few batched SDPA calls: documents of equal length share one.

T tokens, N query heads, K key-value heads, H key width, V value width, B documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.ops.attention.rule import ScoreRule, distances
from weft.ops.attention.softmax import softmax_attention


def packed_attention(
    q_TNH: Tensor,
    k_SKH: Tensor,
    v_SKV: Tensor,
    lengths: tuple[int, ...],
    key_lengths: tuple[int, ...],
    rule: ScoreRule,
) -> Tensor:
    """Attend within each document of a packed batch."""
    runs = equal_runs(lengths, key_lengths)
    if len({run.shape for run in runs}) == 1:
        return attend_equal(q_TNH, k_SKH, v_SKV, *runs[0].shape, rule)
    q_runs = q_TNH.split([run.num_documents * run.length for run in runs])
    key_sizes = [run.num_documents * run.key_length for run in runs]
    k_runs, v_runs = k_SKH.split(key_sizes), v_SKV.split(key_sizes)
    outputs: list[Tensor | None] = [None] * len(runs)
    for shape in dict.fromkeys(run.shape for run in runs):
        members = [i for i, run in enumerate(runs) if run.shape == shape]
        q, k, v = (_join([t[i] for i in members]) for t in (q_runs, k_runs, v_runs))
        out = attend_equal(q, k, v, *shape, rule)
        parts = out.split([q_runs[i].shape[0] for i in members])
        for i, part in zip(members, parts, strict=True):
            outputs[i] = part
    return torch.cat([out for out in outputs if out is not None])


def attend_equal(
    q_TNH: Tensor, k_SKH: Tensor, v_SKV: Tensor, length: int, key_length: int, rule: ScoreRule
) -> Tensor:
    """Attend within documents that all have the same numbers of queries and keys."""
    if q_TNH.shape[0] == 0:
        return q_TNH.new_empty((*q_TNH.shape[:2], v_SKV.shape[2]))
    q = q_TNH.unflatten(0, (-1, length)).transpose(1, 2)
    k, v = (t.unflatten(0, (-1, key_length)).transpose(1, 2) for t in (k_SKH, v_SKV))
    return attend_rows(q, k, v, rule).transpose(1, 2).flatten(0, 1)


def attend_rows(q_BNTH: Tensor, k_BKSH: Tensor, v_BKSV: Tensor, rule: ScoreRule) -> Tensor:
    """Attend from the last T positions of each row to its S keys, [B, N, T, V]."""
    num_queries, num_keys = q_BNTH.shape[2], k_BKSH.shape[2]
    narrow = rule.window is not None and rule.window < num_keys
    if rule.is_plain and not narrow and num_queries == num_keys:
        return F.scaled_dot_product_attention(
            q_BNTH, k_BKSH, v_BKSV, is_causal=True, scale=rule.scale,
            enable_gqa=q_BNTH.shape[1] != k_BKSH.shape[1],
        )  # fmt: skip
    distance_TS = distances(num_queries, num_keys, q_BNTH.device)
    return softmax_attention(
        q_BNTH,
        k_BKSH,
        v_BKSV,
        scale=rule.scale,
        softcap=rule.softcap,
        visible=rule.visible(distance_TS) if rule.causal or narrow else None,
        bias=rule.bias(distance_TS),
        sinks_N11=None if rule.sinks_N is None else rule.sinks_N[:, None, None],
    )


@dataclass(frozen=True)
class Run:
    """Neighbouring documents of equal shape."""

    length: int
    key_length: int
    num_documents: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.length, self.key_length


def equal_runs(lengths: Sequence[int], key_lengths: Sequence[int]) -> list[Run]:
    """Return the runs of neighbouring documents with equal numbers of queries and of keys.

    >>> equal_runs([3, 3, 5], [3, 3, 5])
    [Run(length=3, key_length=3, num_documents=2), Run(length=5, key_length=5, num_documents=1)]
    """
    runs: list[Run] = []
    for shape in zip(lengths, key_lengths, strict=True):
        if runs and runs[-1].shape == shape:
            runs[-1] = Run(*shape, runs[-1].num_documents + 1)
        else:
            runs.append(Run(*shape, 1))
    return runs


def _join(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
