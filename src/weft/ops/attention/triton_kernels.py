"""The decode kernel of ``triton_paged.py``; importing this file needs Triton.

One program attends from one key head's query heads to one split of one sequence's positions and
leaves a stream (``split_kv.py``). Everything is float32 but the operands of matrix products.
"""

from __future__ import annotations

import triton  # pyrefly: ignore[missing-import]
import triton.language as tl  # pyrefly: ignore[missing-import]


@triton.jit
def _load_rows(table, scales, slots_S, is_seen_S, head, NUM_KV_HEADS: tl.constexpr,
               WIDTH: tl.constexpr, PADDED: tl.constexpr, SCALED: tl.constexpr):  # fmt: skip
    """Return one head's rows at these slots, [S, PADDED], float32."""
    rows_S = slots_S * NUM_KV_HEADS + head
    columns_H = tl.arange(0, PADDED)
    is_real = is_seen_S[:, None] & (columns_H < WIDTH)[None, :]
    values = tl.load(table + rows_S[:, None] * WIDTH + columns_H[None, :], mask=is_real, other=0.0)
    values = values.to(tl.float32)
    if SCALED:
        values = values * tl.load(scales + rows_S, mask=is_seen_S, other=0.0)[:, None]
    return values


@triton.jit
def attend_splits(
    q, keys, values, key_scales, value_scales, slots, lasts, mixed, tops, totals,
    slots_stride, q_token_stride, q_head_stride, num_rows, scale, softcap, window, num_first,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    PADDED_GROUP: tl.constexpr, PADDED_WIDTH: tl.constexpr, PADDED_VALUE: tl.constexpr,
    SPLIT: tl.constexpr, SPAN: tl.constexpr, SCALED: tl.constexpr, HAS_CAP: tl.constexpr,
    PRODUCT: tl.constexpr,
):  # fmt: skip
    """Write the stream of one row, key head and split; masks as ``ScoreRule`` says."""
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    last = tl.load(lasts + row).to(tl.int32)
    members_G, columns_H = tl.arange(0, PADDED_GROUP), tl.arange(0, PADDED_WIDTH)
    columns_V = tl.arange(0, PADDED_VALUE)
    heads_G = head * GROUP + members_G
    is_member_G = members_G < GROUP
    places = q + row * q_token_stride + heads_G[:, None] * q_head_stride + columns_H[None, :]
    is_query = is_member_G[:, None] & (columns_H < WIDTH)[None, :]
    q_GH = (tl.load(places, mask=is_query, other=0.0).to(tl.float32) * scale).to(PRODUCT)
    top_G = tl.full([PADDED_GROUP], float("-inf"), tl.float32)
    total_G = tl.zeros([PADDED_GROUP], tl.float32)
    mixed_GV = tl.zeros([PADDED_GROUP, PADDED_VALUE], tl.float32)
    for start in range(split * SPLIT, tl.minimum((split + 1) * SPLIT, last + 1), SPAN):
        positions_S = start + tl.arange(0, SPAN)
        is_seen_S = positions_S <= last
        if window > 0:
            is_seen_S = is_seen_S & ((positions_S > last - window) | (positions_S < num_first))
        slots_S = tl.load(slots + row * slots_stride + positions_S, mask=is_seen_S, other=0)
        k_SH = _load_rows(
            keys, key_scales, slots_S, is_seen_S, head, NUM_KV_HEADS, WIDTH, PADDED_WIDTH, SCALED
        )
        scores_GS = tl.dot(q_GH, tl.trans(k_SH).to(PRODUCT), input_precision="ieee")
        if HAS_CAP:
            scores_GS = softcap * (2.0 / (1.0 + tl.exp(-2.0 * scores_GS / softcap)) - 1.0)
        scores_GS = tl.where(is_seen_S[None, :], scores_GS, float("-inf"))
        new_top_G = tl.maximum(top_G, tl.max(scores_GS, 1))
        offset_G = tl.where(new_top_G == float("-inf"), 0.0, new_top_G)
        factor_G = tl.exp(top_G - offset_G)
        weights_GS = tl.exp(scores_GS - offset_G[:, None])
        v_SV = _load_rows(
            values, value_scales, slots_S, is_seen_S, head, NUM_KV_HEADS, VALUE_WIDTH,
            PADDED_VALUE, SCALED,
        )  # fmt: skip
        read_GV = tl.dot(weights_GS.to(PRODUCT), v_SV.to(PRODUCT), input_precision="ieee")
        mixed_GV = mixed_GV * factor_G[:, None] + read_GV
        total_G = total_G * factor_G + tl.sum(weights_GS, 1)
        top_G = new_top_G
    places_G = (split.to(tl.int64) * num_rows + row) * (NUM_KV_HEADS * GROUP) + heads_G
    tl.store(tops + places_G, top_G, mask=is_member_G)
    tl.store(totals + places_G, total_G, mask=is_member_G)
    is_value = is_member_G[:, None] & (columns_V < VALUE_WIDTH)[None, :]
    tl.store(mixed + places_G[:, None] * VALUE_WIDTH + columns_V[None, :], mixed_GV, mask=is_value)
