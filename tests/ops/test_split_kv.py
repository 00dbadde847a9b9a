"""Parts of a context merge to the whole, whatever the split."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from weft.ops import PagedLayout, ScoreRule, paged_attention
from weft.ops.attention.reference import dense_attention
from weft.ops.attention.split_kv import Streams, attend_part, merge, merge_by_lse

HIDDEN = float("-inf")


def streams_of(scores_NS: Tensor, values_NSV: Tensor, sizes: list[int]) -> Streams:
    parts = zip(scores_NS.split(sizes, -1), values_NSV.split(sizes, -2), strict=True)
    streams = [attend_part(scores, values) for scores, values in parts]
    return Streams(
        *(torch.cat([getattr(s, n) for s in streams]) for n in ("mixed", "tops", "totals"))
    )


def whole(scores_NS: Tensor, values_NSV: Tensor) -> Tensor:
    return (scores_NS.softmax(-1).unsqueeze(-2) @ values_NSV).squeeze(-2)


@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
def test_two_step_merge_over_1024_keys_is_off_by_rounding_only(block: int) -> None:
    generator = torch.Generator().manual_seed(block)
    scores = torch.randn(8, 1024, generator=generator)
    values = torch.randn(8, 1024, 64, generator=generator)
    streams = streams_of(scores, values, [block] * (1024 // block))
    exact = whole(scores.double(), values.double())
    by_lse, _ = merge_by_lse(
        streams.mixed / streams.totals.unsqueeze(-1), streams.tops + streams.totals.log()
    )
    for merged in (merge(streams), by_lse):
        assert (merged - exact).abs().max() < 5e-7
        assert (merged - whole(scores, values)).abs().max() < 1e-6


@given(st.integers(0, 10_000), st.lists(st.integers(1, 9), min_size=1, max_size=7), st.booleans())
def test_any_split_with_anything_hidden_gives_the_whole(seed, sizes, by_lse) -> None:
    generator = torch.Generator().manual_seed(seed)
    num_keys = sum(sizes)
    scores = 30 * torch.randn(3, num_keys, generator=generator, dtype=torch.float64)
    values = torch.randn(3, num_keys, 4, generator=generator, dtype=torch.float64)
    hidden = torch.rand(3, num_keys, generator=generator) < 0.6
    hidden[:, seed % num_keys] = False
    scores = scores.masked_fill(hidden, HIDDEN)
    streams = streams_of(scores, values, sizes)
    merged = merge(streams)
    if by_lse:  # whole parts are hidden: 0 / 0 of theirs must not spread
        merged, lse = merge_by_lse(
            streams.mixed / streams.totals.unsqueeze(-1), streams.tops + streams.totals.log()
        )
        torch.testing.assert_close(lse, scores.logsumexp(-1))
    torch.testing.assert_close(merged, whole(scores, values), rtol=1e-10, atol=1e-12)


def test_parts_of_minus_infinity_are_safe() -> None:
    scores, values = torch.full((2, 6), HIDDEN), torch.randn(2, 6, 3)
    assert (merge(streams_of(scores, values, [3, 3])) == 0).all()
    scores[0, 4] = 7.0
    merged = merge(streams_of(scores, values, [2, 2, 2]))
    torch.testing.assert_close(merged[0], values[0, 4])
    assert (merged[1] == 0).all()


def test_merging_by_lse_can_go_on() -> None:
    outputs, lse = torch.randn(5, 2, 3), torch.randn(5, 2)
    at_once, total = merge_by_lse(outputs, lse)
    first, first_lse = merge_by_lse(outputs[:3], lse[:3])
    then, then_lse = merge_by_lse(
        torch.stack([first, *outputs[3:]]), torch.stack([first_lse, *lse[3:]])
    )
    torch.testing.assert_close(then, at_once)
    torch.testing.assert_close(then_lse, total)


def test_scores_far_apart_do_not_overflow() -> None:
    scores, values = torch.tensor([[3e4, -3e4, 3e4, 1.0]]), torch.randn(1, 4, 2)
    merged = merge(streams_of(scores, values, [1, 1, 2]))
    torch.testing.assert_close(merged, whole(scores, values))


def test_sequences_of_8_and_7_begin_at_0_8_15_and_equal_dense_attention() -> None:
    """The variable-length interface: lengths, block tables and cached lengths."""
    torch.manual_seed(0)
    q, k, v = torch.randn(15, 4, 16), torch.randn(40, 2, 16), torch.randn(40, 2, 16)
    slots_BS = torch.randperm(40)[:24].view(2, 12)
    layout = PagedLayout((8, 7), (12, 7), slots_BS, decode=False)
    assert [0, *layout.rows_T.bincount().cumsum(0).tolist()] == [0, 8, 15]
    actual = paged_attention(q, k, v, layout, ScoreRule(0.25))
    for row, context in enumerate(layout.context_lengths):
        span, slots_S = (slice(0, 8), slice(8, 15))[row], slots_BS[row, :context]
        expected = dense_attention(q[span], k[slots_S], v[slots_S], ScoreRule(0.25))
        torch.testing.assert_close(actual[span], expected)


def test_nine_tokens_in_chunks_of_three_are_off_by_an_ulp_or_two() -> None:
    torch.manual_seed(1)
    q, k, v = (torch.randn(9, 2, 32) for _ in range(3))
    slots_S = torch.randperm(9)
    cached = [torch.empty(9, 2, 32).index_copy_(0, slots_S, x) for x in (k, v)]
    exact = dense_attention(q.double(), k.double(), v.double(), ScoreRule(32**-0.5))
    for size, bound in ((3, 4e-7), (1, 4e-7)):
        for start in range(0, 9, size):
            stop = start + size
            layout = PagedLayout((size,), (stop,), slots_S[None, :stop], decode=size == 1)
            actual = paged_attention(q[start:stop], *cached, layout, ScoreRule(32**-0.5))
            assert (actual - exact[start:stop]).abs().max() < bound
