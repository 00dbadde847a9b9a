"""Attention in groups and segments against attention to the whole sequence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from weft.core.errors import ConfigError
from weft.ops import ScoreRule, packed_attention
from weft.ops.attention.segments import (
    attend_with_memory,
    global_attention,
    shifted_attention,
)

RULE = ScoreRule(0.25)


def heads(num_tokens: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(num_tokens, n, 16, dtype=dtype) for n in (4, 2, 2)]


@pytest.mark.parametrize("group_size", [12, 14, 100])
def test_groups_as_long_as_the_sequence_are_dense_attention(group_size: int) -> None:
    q, k, v = heads(20)
    shifted = shifted_attention(q, k, v, (12, 8), RULE, group_size=group_size)
    assert torch.equal(shifted, packed_attention(q, k, v, (12, 8), RULE))


def test_half_of_the_heads_see_groups_shifted_by_half() -> None:
    q, k, v = heads(10)
    before = shifted_attention(q, k, v, (10,), RULE, group_size=4)
    for position in range(10):
        changed = v.clone()
        changed[position] += 1.0
        seen = (shifted_attention(q, k, changed, (10,), RULE, group_size=4) != before).any(-1)
        ends = (position // 4 * 4 + 4, (position + 2) // 4 * 4 + 2)
        for half, end in zip(seen.split(2, dim=1), ends, strict=True):
            expected = [position <= t < end for t in range(10)]
            assert half.all(1).tolist() == half.any(1).tolist() == expected


def test_groups_never_cross_documents() -> None:
    q, k, v = heads(17)
    both = shifted_attention(q, k, v, (9, 8), RULE, group_size=4)
    parts = [t.split((9, 8)) for t in (q, k, v)]
    for index, length in enumerate((9, 8)):
        alone = shifted_attention(*(t[index] for t in parts), (length,), RULE, group_size=4)
        torch.testing.assert_close(both.split((9, 8))[index], alone)


@pytest.mark.parametrize(("group_size", "num_kv_heads"), [(5, 2), (4, 1)])
def test_what_has_no_half_is_refused(group_size: int, num_kv_heads: int) -> None:
    q, k, v = heads(8)
    k, v = k[:, :num_kv_heads], v[:, :num_kv_heads]
    with pytest.raises(ConfigError, match="must be even"):
        shifted_attention(q, k, v, (8,), RULE, group_size=group_size)


@pytest.mark.parametrize("segment", [1, 3, 5, 20])
@pytest.mark.parametrize("window", [1, 4, 7])
def test_segments_with_memory_give_what_one_pass_gives(segment: int, window: int) -> None:
    q, k, v = heads(20, torch.float64)
    rule = ScoreRule(0.25, window=window)
    memory, outputs = None, []
    for parts in zip(*(t.split(segment) for t in (q, k, v)), strict=True):
        out, memory = attend_with_memory(*parts, memory, rule, memory_size=window - 1)
        outputs.append(out)
        assert len(memory[0]) <= window - 1
    torch.testing.assert_close(torch.cat(outputs), packed_attention(q, k, v, (20,), rule))


def test_a_memory_of_everything_needs_no_window_and_gets_no_gradient() -> None:
    q, k, v = (t.requires_grad_() for t in heads(12, torch.float64))
    _, memory = attend_with_memory(q[:7], k[:7], v[:7], None, RULE, memory_size=99)
    out, _ = attend_with_memory(q[7:], k[7:], v[7:], memory, RULE, memory_size=99)
    torch.testing.assert_close(out, packed_attention(q, k, v, (12,), RULE)[7:])
    (grad,) = torch.autograd.grad(out.sum(), k)
    assert grad[:7].abs().max() == 0
    assert grad[7:].abs().max() > 0


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_global_tokens_see_all_and_are_seen_by_all(causal: bool, softcap: float | None) -> None:
    """Every pair by hand: in the window, or one of them global, and not ahead."""
    q, k, v = heads(13, torch.float64)
    is_global, lengths = torch.zeros(13, dtype=torch.bool), (8, 5)
    is_global[[0, 5, 9]] = True
    rule = ScoreRule(0.25, window=2, causal=causal, softcap=softcap)
    got = global_attention(q, k, v, is_global, lengths, rule)
    for i in range(13):
        first, stop = (0, 8) if i < 8 else (8, 13)
        seen = [
            j
            for j in range(first, i + 1 if causal else stop)
            if abs(i - j) < 2 or is_global[i] or is_global[j]
        ]
        for head in range(4):
            scores = k[seen, head // 2] @ q[i, head] * 0.25
            if softcap is not None:
                scores = softcap * (scores / softcap).tanh()
            expected = scores.softmax(0) @ v[seen, head // 2]
            torch.testing.assert_close(got[i, head], expected)


def test_without_global_tokens_only_the_window_is_left() -> None:
    q, k, v = heads(20)
    rule = ScoreRule(0.25, window=4)
    got = global_attention(q, k, v, torch.zeros(20, dtype=torch.bool), (12, 8), rule)
    torch.testing.assert_close(got, packed_attention(q, k, v, (12, 8), rule))


def test_global_tokens_with_slopes_are_refused() -> None:
    q, k, v = heads(4)
    rule = ScoreRule(0.25, slopes_N=torch.ones(4))
    with pytest.raises(ConfigError, match="no sinks, slopes"):
        global_attention(q, k, v, torch.ones(4, dtype=torch.bool), (4,), rule)
