"""Decoding over the paged cache on a GPU, in splits of a fixed size (flash-decoding).

Rows, key heads and splits are computed side by side and merged in a second step. The size of a
split is fixed, so a row's sums have the same order in any batch. Decode steps only: prefill chunks
have enough queries to fill a GPU by themselves. B rows, N query heads, K key-value heads, H key
width, V value width, P splits.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor

from weft.ops.attention.layout import PagedLayout
from weft.ops.attention.rule import ScoreRule
from weft.ops.attention.split_kv import Streams, merge
from weft.ops.scaled_rows import Rows, ScaledRows

SPLIT_SIZE, SPAN = 256, 64
MAX_WIDTH = 256
# Matrix products of a GPU have at least this many rows.
MIN_ROWS = 16


def accepts(q_BNH: Tensor, k_SKH: Rows, v_SKV: Rows, layout: PagedLayout, rule: ScoreRule) -> bool:
    """Return whether this is a decode step on a GPU that the kernel knows the scores of."""
    return (
        q_BNH.is_cuda
        and layout.decode
        and rule.causal
        and rule.slopes_N is None
        and rule.bias_NR is None
        and q_BNH.dtype != torch.float64
        and q_BNH.stride(2) == 1
        and max(k_SKH.shape[-1], v_SKV.shape[-1]) <= MAX_WIDTH
        and _readable(k_SKH, v_SKV)
        and not torch.compiler.is_compiling()
        and _has_triton()
    )


def paged_attention(
    q_BNH: Tensor, k_SKH: Rows, v_SKV: Rows, layout: PagedLayout, rule: ScoreRule
) -> Tensor:
    """Attend from one token of each sequence, [B, N, V]."""
    streams = _streams(q_BNH, k_SKH, v_SKV, layout, rule)
    if rule.sinks_N is not None:  # a key whose score is the sink and whose value is zero
        streams = _with_sinks(streams, rule.sinks_N)
    return merge(streams).to(q_BNH.dtype)


def _streams(
    q_BNH: Tensor, k_SKH: Rows, v_SKV: Rows, layout: PagedLayout, rule: ScoreRule
) -> Streams:
    # Triton is an optional part of torch's GPU builds.
    from weft.ops.attention.triton_kernels import attend_splits

    (num_rows, num_heads, width), value_width = q_BNH.shape, v_SKV.shape[-1]
    num_kv_heads = k_SKH.shape[1]
    num_splits = -(-layout.slots_BS.shape[1] // SPLIT_SIZE)
    like = {"device": q_BNH.device, "dtype": torch.float32}
    mixed = torch.empty((num_splits, num_rows, num_heads, value_width), **like)
    tops, totals = (torch.empty(mixed.shape[:-1], **like) for _ in range(2))
    (keys, key_scales), (values, value_scales) = _tables(k_SKH), _tables(v_SKV)
    attend_splits[num_rows, num_kv_heads, num_splits](
        q_BNH, keys, values, key_scales, value_scales, layout.slots_BS,
        -layout.distances_BS[:, 0], mixed, tops, totals,
        layout.slots_BS.stride(0), q_BNH.stride(0), q_BNH.stride(1), num_rows, rule.scale,
        rule.softcap or 1.0, rule.window or 0, rule.num_first,
        NUM_KV_HEADS=num_kv_heads, GROUP=num_heads // num_kv_heads, WIDTH=width,
        VALUE_WIDTH=value_width, PADDED_GROUP=_padded(num_heads // num_kv_heads),
        PADDED_WIDTH=_padded(width), PADDED_VALUE=_padded(value_width), SPLIT=SPLIT_SIZE,
        SPAN=SPAN, SCALED=isinstance(k_SKH, ScaledRows), HAS_CAP=rule.softcap is not None,
        PRODUCT=_product_type(q_BNH),
    )  # fmt: skip
    return Streams(mixed, tops, totals)


def _with_sinks(streams: Streams, sinks_N: Tensor) -> Streams:
    tops_BN = sinks_N.to(streams.tops.dtype).expand_as(streams.tops[0])
    return Streams(
        torch.cat((streams.mixed, torch.zeros_like(streams.mixed[:1]))),
        torch.cat((streams.tops, tops_BN[None])),
        torch.cat((streams.totals, torch.ones_like(tops_BN)[None])),
    )


def _readable(k_SKH: Rows, v_SKV: Rows) -> bool:
    if isinstance(k_SKH, ScaledRows) != isinstance(v_SKV, ScaledRows):
        return False
    parts = [part for rows in (k_SKH, v_SKV) for part in _tables(rows)]
    whole = not any(
        isinstance(rows, ScaledRows) and rows.exact is not None for rows in (k_SKH, v_SKV)
    )
    return whole and all(part.is_contiguous() for part in parts)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _tables(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return numbers and factors; where there are no factors, the kernel reads none."""
    return (rows.codes, rows.scales) if isinstance(rows, ScaledRows) else (rows, rows)


def _padded(size: int) -> int:
    return max(MIN_ROWS, 1 << (size - 1).bit_length())


def _product_type(q_BNH: Tensor) -> object:
    """Return the type matrix products multiply in: the model's, where a GPU has units for it."""
    import triton.language as tl  # pyrefly: ignore[missing-import]

    halves = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
    return halves.get(q_BNH.dtype, tl.float32) if q_BNH.is_cuda else tl.float32
