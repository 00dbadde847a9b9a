"""The tokens each head has attended to most, against masks over everything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from weft.nn.context import PagedBatch, StepContext
from weft.nn.kv_cache import KVCache
from weft.nn.long_context.heavy_hitter import choose_places
from weft.nn.long_context.policy import HeavyHitter
from weft.nn.long_context.reference import heavy_hitter_attention
from weft.ops import PagedLayout, ScoreRule
from weft.ops.attention.reference import dense_attention
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec

MIXER = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16)
SPEC = ModelSpec("llama", 61, 32, (LayerSpec(MIXER, MLPSpec(48)),) * 2, context_length=4096)
RULE = ScoreRule(0.25)


def random_heads(length: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, heads, 16, generator=generator) for heads in (4, 2, 2)]


def run(
    policy: HeavyHitter, sequences: list[list[Tensor]], chunk: int, rule: ScoreRule = RULE
) -> tuple[list[Tensor], KVCache]:
    cache = KVCache(SPEC, num_blocks=1, block_size=4, num_sequences=9, policy=policy)
    for stored in cache.states[1].values():
        stored.fill_(7.0)  # what other sequences left
    outputs: list[list[Tensor]] = [[] for _ in sequences]
    for start in range(0, max(len(qkv[0]) for qkv in sequences), chunk):
        rows = [row for row, qkv in enumerate(sequences) if start < len(qkv[0])]
        parts = [[x[start : start + chunk] for x in sequences[row]] for row in rows]
        lengths = tuple(len(part[0]) for part in parts)
        contexts = tuple(start + length for length in lengths)
        batch = PagedBatch(
            torch.cat([torch.arange(start, stop) for stop in contexts]),
            torch.zeros(sum(lengths), dtype=torch.int64),
            PagedLayout(
                lengths, contexts, torch.zeros(len(rows), max(contexts), dtype=torch.int64), False
            ),
            torch.tensor([8 - row for row in rows]),
        )
        q, k, v = (torch.cat([part[i] for part in parts]) for i in range(3))
        out = StepContext.paged(cache, batch).attend(1, q, k, v, rule)
        for row, part in zip(rows, out.split(lengths), strict=True):
            outputs[row].append(part)
    return [torch.cat(parts) for parts in outputs], cache


@pytest.mark.parametrize("chunk", [1, 4, 64])
@pytest.mark.parametrize(("budget", "recent"), [(8, 4), (1, 0), (6, 0), (6, 5), (100, 50)])
def test_heavy_hitters_equal_masked_reference(budget: int, recent: int, chunk: int) -> None:
    policy = HeavyHitter(budget, recent)
    sequences = [random_heads(length, seed) for seed, length in enumerate((40, 3, 21))]
    outputs, _ = run(policy, sequences, chunk)
    for actual, qkv in zip(outputs, sequences, strict=True):
        expected, _ = heavy_hitter_attention(*qkv, RULE, policy)
        torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-6)


def test_chunks_of_one_sequence_change_no_bit() -> None:
    policy, qkv = HeavyHitter(8, 4), random_heads(40)
    (whole,), _ = run(policy, [qkv], 64)
    for chunk in (1, 3, 7):
        assert torch.equal(run(policy, [qkv], chunk)[0][0], whole)


def test_a_budget_of_the_length_is_ordinary_attention() -> None:
    qkv = random_heads(30)
    for rule in (RULE, ScoreRule(0.25, softcap=2.0), ScoreRule(0.25, sinks_N=torch.ones(4))):
        (actual,), _ = run(HeavyHitter(30, 3), [qkv], 7, rule)
        torch.testing.assert_close(actual, dense_attention(*qkv, rule), rtol=2e-5, atol=2e-6)


def test_every_head_keeps_the_budget_and_the_recent_tokens() -> None:
    policy = HeavyHitter(8, 4)
    _, seen_TKT = heavy_hitter_attention(*random_heads(40), RULE, policy)
    counts_TK = seen_TKT.sum(-1)
    assert (counts_TK == torch.arange(1, 41).clamp_max(8)[:, None]).all()
    for token in range(40):
        assert seen_TKT[token, :, max(0, token - 4) : token + 1].all()
    assert (seen_TKT[:, 0] != seen_TKT[:, 1]).any(), "heads choose for themselves"


def test_the_entry_of_the_lowest_score_goes_and_recent_ones_stay() -> None:
    scores = torch.tensor([[[0.5, 0.1, 0.3, 0.0]]])
    positions = torch.tensor([[[0.0, 6.0, 2.0, 9.0]]])
    now = torch.tensor([10])
    assert choose_places(scores, positions, now, HeavyHitter(4, 1)).item() == 1
    assert choose_places(scores, positions, now, HeavyHitter(4, 0)).item() == 3
    filling = choose_places(scores, positions, torch.tensor([2]), HeavyHitter(4, 1))
    assert filling.item() == 2


def test_a_token_attended_to_by_all_outlives_the_others() -> None:
    q, k, v = (torch.zeros(30, heads, 16) for heads in (4, 2, 2))
    q[..., 0], k[2, :, 0] = 8.0, 8.0  # everybody looks at token 2
    _, seen_TKT = heavy_hitter_attention(q, k, v, RULE, HeavyHitter(6, 3))
    assert seen_TKT[29, :, 2].all()
    _, cache = run(HeavyHitter(6, 3), [[q, k, v]], 5)
    assert (cache.states[1]["positions"][8] == 2).any(-1).all()


def test_memory_does_not_grow_with_the_sequence() -> None:
    policy = HeavyHitter(8, 4)
    _, short = run(policy, [random_heads(9)], 4)
    _, long = run(policy, [random_heads(200)], 50)
    assert short.size_bytes == long.size_bytes
    per_sequence = 2 * 2 * 8 * (2 * 16 * 4 + 2 * 4)  # layers, heads, places, numbers
    assert long.size_bytes == 9 * per_sequence
