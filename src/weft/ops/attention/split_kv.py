"""Attention over a context in parts, and how the parts become one result.

A part of the keys gives a *stream*: an unnormalised sum of values, the largest score and the sum of
exponentials below it. Streams of any split merge to the softmax over everything (flash-decoding,
Dao et al. 2023; the online softmax of Milakov and Gimelshein 2018, arXiv:1805.02867). The split is
by a fixed size, never by a fixed number, so that a row's sums do not depend on its batch.

P parts, * any axes, S keys of one part, V value width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Streams:
    """What is known of some parts of the keys, all float32 or wider.

    Attributes:
        mixed: Values weighted by ``exp(score - top)``, [P, *, V].
        tops: Largest score, [P, *]; minus infinity where nothing is visible.
        totals: Sum of ``exp(score - top)``, [P, *].
    """

    mixed: Tensor
    tops: Tensor
    totals: Tensor


def attend_part(scores: Tensor, values: Tensor) -> Streams:
    """Return the stream of one part: scores [*, S] with -inf where hidden, values [*, S, V]."""
    tops = scores.amax(-1)
    weights = (scores - _finite(tops).unsqueeze(-1)).exp()
    mixed = (weights.unsqueeze(-2) @ values).squeeze(-2)
    return Streams(mixed[None], tops[None], weights.sum(-1)[None])


def merge(streams: Streams) -> Tensor:
    """Return the softmax-weighted values over all parts, [*, V]; zero where nothing is visible.

    Two steps: the largest score of all parts, then sums scaled to it.
    """
    top = _finite(streams.tops.amax(0))
    factors = (streams.tops - top).exp()
    total = (factors * streams.totals).sum(0)
    mixed = (factors.unsqueeze(-1) * streams.mixed).sum(0)
    return mixed / torch.where(total > 0, total, torch.ones_like(total)).unsqueeze(-1)


def merge_by_lse(outputs: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """Merge parts of which only results [P, *, V] and log sum exp [P, *] are known.

    Returns:
        The result over all parts, [*, V], and its log sum exp, [*]: merging may go on with it.
    """
    merged = lse.logsumexp(0)
    weights = (lse - _finite(merged)).exp()
    # A part without a visible key may hold anything, NaN included.
    outputs = outputs.masked_fill((weights == 0).unsqueeze(-1), 0.0)
    return (weights.unsqueeze(-1) * outputs).sum(0), merged


def _finite(scores: Tensor) -> Tensor:
    """Replace minus infinity by 0: a difference of two of them would be NaN."""
    return scores.masked_fill(scores == float("-inf"), 0.0)
