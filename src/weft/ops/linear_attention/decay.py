"""Products of decays inside a chunk, without overflow.

C tokens of a chunk, K key width. A decay is its logarithm, at most 0, [..., C, K]: one per key
channel, or one for all of them where the last axis has width 1.

A product of queries and keys with a decay per channel factors as (q e^c)(k e^-c)^T, whose second
half overflows. The block form of gated linear attention (Yang et al. 2023, arXiv:2312.06635,
section 4.3) refers both exponents to the start of a block of rows: at most 0 for keys before the
block, and bounded inside it, where the product is taken in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rows of a block. A chunk's length is a multiple of it.
BLOCK = 16
# exp(-40) is far below the last digit of a float32, and 16 of them stay inside a float64.
MIN_LOG_DECAY = -40.0


def cumulative(log_decay_CK: Tensor) -> Tensor:
    """Return the sums from the start of the chunk up to and with each token, float64.

    Differences of long sums are what counts, so float32 would lose their last digits.
    """
    return log_decay_CK.double().clamp(min=MIN_LOG_DECAY).cumsum(dim=-2)


def decayed_scores(q_CK: Tensor, k_CK: Tensor, sums_CK: Tensor | None) -> Tensor:
    """Return sum_d q_id k_jd exp(c_id - c_jd) for i >= j and zero elsewhere, [..., C, C]."""
    if sums_CK is None:
        return (q_CK @ k_CK.mT).tril()
    if sums_CK.shape[-1] == 1:
        return (q_CK @ k_CK.mT) * pairwise_decay(sums_CK, q_CK.dtype)
    return _channel_scores(q_CK, k_CK, sums_CK)


def pairwise_decay(sums_C1: Tensor, dtype: torch.dtype) -> Tensor:
    """Return exp(c_i - c_j) for i >= j and zero elsewhere, [..., C, C]."""
    gaps_CC = (sums_C1 - sums_C1.mT).to(dtype)
    ahead_CC = torch.ones(gaps_CC.shape[-2:], dtype=torch.bool, device=gaps_CC.device).triu(1)
    return gaps_CC.masked_fill(ahead_CC, float("-inf")).exp()


def _channel_scores(q_CK: Tensor, k_CK: Tensor, sums_CK: Tensor) -> Tensor:
    num_tokens = q_CK.shape[-2]
    rows = [
        _block_row(q_CK, k_CK, sums_CK, start, min(start + BLOCK, num_tokens))
        for start in range(0, num_tokens, BLOCK)
    ]
    return torch.cat(rows, dim=-2)


def _block_row(q_CK: Tensor, k_CK: Tensor, sums_CK: Tensor, start: int, stop: int) -> Tensor:
    """Return the scores of rows start .. stop against all tokens, [..., stop - start, C]."""
    origin_1K = sums_CK[..., start - 1 : start, :] if start else 0.0
    since_CK = sums_CK[..., start:stop, :] - origin_1K
    q_block_CK = q_CK[..., start:stop, :] * since_CK.exp()
    k_block_CK = k_CK[..., start:stop, :] * (-since_CK).exp()
    row = [(q_block_CK @ k_block_CK.mT).tril().to(q_CK.dtype)]
    if start:
        until_CK = (origin_1K - sums_CK[..., :start, :]).to(q_CK.dtype).exp()
        row.insert(0, q_block_CK.to(q_CK.dtype) @ (k_CK[..., :start, :] * until_CK).mT)
    num_ahead = q_CK.shape[-2] - stop
    return torch.nn.functional.pad(torch.cat(row, dim=-1), (0, num_ahead))
