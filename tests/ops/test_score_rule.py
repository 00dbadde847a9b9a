"""Everything a ``ScoreRule`` can ask for, against a definition written number by number."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from weft.ops import PagedLayout, ScoreRule, packed_attention, paged_attention
from weft.ops.native.bindings import load_library
from weft.ops.registry import PACKED_ATTENTION, PAGED_ATTENTION


def written_out(q_TNH: Tensor, k_SKH: Tensor, v_SKV: Tensor, rule: ScoreRule) -> Tensor:
    """Attend with one score at a time, as the class docstring says."""
    (num_queries, num_heads, _), (num_keys, num_kv_heads, _) = q_TNH.shape, k_SKH.shape
    rows = []
    for t in range(num_queries):
        position, heads = t + num_keys - num_queries, []
        for n in range(num_heads):
            kv = n // (num_heads // num_kv_heads)
            scores, values = [], []
            for s in range(num_keys):
                distance = s - position
                if rule.causal and distance > 0:
                    continue
                if rule.window is not None and abs(distance) >= rule.window:
                    continue
                score = rule.scale * (q_TNH[t, n] @ k_SKH[s, kv])
                if rule.softcap is not None:
                    score = rule.softcap * torch.tanh(score / rule.softcap)
                if rule.slopes_N is not None:
                    score = score - rule.slopes_N[n] * abs(distance)
                if rule.bias_NR is not None:
                    reach = rule.bias_NR.shape[1] // 2
                    score = score + rule.bias_NR[n, max(-reach, min(reach, distance)) + reach]
                scores.append(score)
                values.append(v_SKV[s, kv])
            if rule.sinks_N is not None:
                scores.append(rule.sinks_N[n])
                values.append(torch.zeros_like(v_SKV[0, 0]))
            heads.append(torch.stack(scores).softmax(0) @ torch.stack(values))
        rows.append(torch.stack(heads))
    return torch.stack(rows)


def random_rule(rng: random.Random, num_heads: int, *, causal: bool | None = None) -> ScoreRule:
    def learnt(*shape: int) -> Tensor | None:
        return torch.randn(shape, dtype=torch.float64, requires_grad=True) if coin() else None

    def coin() -> bool:
        return rng.random() < 0.5

    return ScoreRule(
        rng.choice((0.3, 1.0)),
        window=rng.choice((None, 1, 3, 50)),
        causal=coin() if causal is None else causal,
        softcap=rng.choice((None, 1.5)),
        sinks_N=learnt(num_heads),
        slopes_N=torch.rand(num_heads, dtype=torch.float64) if coin() else None,
        bias_NR=learnt(num_heads, 2 * rng.choice((0, 2, 9)) + 1),
    )


@pytest.mark.parametrize("seed", range(25))
def test_packed_attention_and_its_gradients_are_the_definition(seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kv_heads = rng.choice((1, 2))
    num_heads = kv_heads * rng.choice((1, 3))
    rule = random_rule(rng, num_heads)
    lengths = tuple(rng.randint(1, 7) for _ in range(rng.randint(1, 4)))
    key_lengths = tuple(n + rng.choice((0, 0, 4)) for n in lengths)
    q, k, v = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in (
            (sum(lengths), num_heads, 6),
            (sum(key_lengths), kv_heads, 6),
            (sum(key_lengths), kv_heads, 4),
        )
    )
    actual = packed_attention(q, k, v, lengths, rule, key_lengths=key_lengths)
    documents = zip(q.split(lengths), k.split(key_lengths), v.split(key_lengths), strict=True)
    expected = torch.cat([written_out(*document, rule) for document in documents])
    torch.testing.assert_close(actual, expected)
    leaves = [t for t in (q, k, v, rule.sinks_N, rule.bias_NR) if t is not None]
    upstream = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(actual, leaves, upstream),
        torch.autograd.grad(expected, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_paged_attention_is_the_definition(seed: int, decode: bool) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kv_heads, contexts = rng.choice((1, 2)), [rng.randint(1, 9) for _ in range(3)]
    num_heads = kv_heads * 2
    rule = random_rule(rng, num_heads, causal=True)
    queries = tuple(1 if decode else rng.randint(1, context) for context in contexts)
    slots = torch.randperm(40)
    slots_BS = torch.zeros(3, max(contexts), dtype=torch.int64)
    for row, context in enumerate(contexts):
        slots_BS[row, :context], slots = slots[:context], slots[context:]
    q = torch.randn(sum(queries), num_heads, 6, dtype=torch.float64)
    k, v = (torch.randn(40, kv_heads, width, dtype=torch.float64) for width in (6, 3))
    layout = PagedLayout(queries, tuple(contexts), slots_BS, decode)
    with torch.no_grad():
        actual = paged_attention(q, k, v, layout, rule).split(queries)
        for row, (q_row, out_row) in enumerate(zip(q.split(queries), actual, strict=True)):
            used_S = slots_BS[row, : contexts[row]]
            torch.testing.assert_close(out_row, written_out(q_row, k[used_S], v[used_S], rule))


def heads(*shape: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape) for _ in range(3)]


def test_bidirectional_attention_is_that_of_torch() -> None:
    q, k, v = heads(9, 2, 16)
    actual = packed_attention(q, k, v, (9,), ScoreRule(0.25, causal=False))
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
    )
    torch.testing.assert_close(actual, expected.transpose(0, 1))


def test_queries_of_one_sequence_meet_the_keys_of_another() -> None:
    q, k, v = heads(9, 2, 16)
    rule = ScoreRule(0.25, causal=False)
    whole = packed_attention(q[:5], k, v, (2, 3), rule, key_lengths=(6, 3))
    first = packed_attention(q[:2], k[:6], v[:6], (2,), rule, key_lengths=(6,))
    torch.testing.assert_close(whole[:2], first)


def test_a_memory_before_the_queries_is_the_tail_of_attention_over_all() -> None:
    q, k, v = heads(12, 2, 16)
    whole = packed_attention(q, k, v, (12,), ScoreRule(0.25, window=6))
    tail = packed_attention(q[8:], k, v, (4,), ScoreRule(0.25, window=6), key_lengths=(12,))
    torch.testing.assert_close(tail, whole[8:])


def test_a_sink_takes_its_share_of_the_softmax() -> None:
    q, k, v = torch.zeros(1, 1, 16), torch.zeros(1, 1, 16), torch.ones(1, 1, 16)
    rule = ScoreRule(1.0, sinks_N=torch.tensor([math.log(3.0)]))
    out = packed_attention(q, k, v, (1,), rule)
    torch.testing.assert_close(out, torch.full_like(out, 0.25))


def test_no_score_passes_the_soft_cap() -> None:
    q, k = torch.full((2, 1, 16), 100.0), torch.full((2, 1, 16), 100.0)
    k[1] = -100.0
    v = torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 1, 16)
    out = packed_attention(q, k, v, (2,), ScoreRule(1.0, softcap=2.0))
    # Scores are +2 and -2 however large the products are.
    assert out[1, 0, 0].item() == pytest.approx(1 / (1 + math.exp(-4.0)))


@pytest.mark.skipif(
    (library := load_library()) is None or not library.wide_registers, reason="no C kernels"
)
def test_only_plain_rules_go_to_the_c_kernels() -> None:
    q, k, v = heads(4, 2, 16)
    layout = PagedLayout((4,), (4,), torch.arange(4).unsqueeze(0), False)
    odd = (
        ScoreRule(1.0, causal=False),
        ScoreRule(1.0, softcap=1.0),
        ScoreRule(1.0, sinks_N=torch.zeros(2)),
        ScoreRule(1.0, slopes_N=torch.ones(2)),
        ScoreRule(1.0, bias_NR=torch.zeros(2, 3)),
    )
    for rule, name in ((ScoreRule(1.0, 2), "native"), *((rule, "grouped") for rule in odd)):
        assert PACKED_ATTENTION.chosen(q, k, v, (4,), (4,), rule) == name
        paged = "native" if name == "native" else "gathered"
        assert PAGED_ATTENTION.chosen(q, k, v, layout, rule) == paged
    narrow = v[..., :8].contiguous()
    assert PACKED_ATTENTION.chosen(q, k, narrow, (4,), (4,), ScoreRule(1.0)) == "grouped"
    assert PAGED_ATTENTION.chosen(q, k, narrow, layout, ScoreRule(1.0)) == "gathered"
    assert PACKED_ATTENTION.chosen(q[:2], k, v, (2,), (4,), ScoreRule(1.0)) == "grouped"
