"""Random arguments for every op: ragged sizes, strided views, both layouts, windows."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from weft.ops import PagedLayout, ScoreRule


@dataclass(frozen=True)
class Case:
    """Arguments of one call and the tensors whose gradients are compared."""

    args: tuple[Any, ...]
    leaves: tuple[Tensor, ...] = ()


def leaf(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(*shape).to(dtype).requires_grad_()


def linear(rng: random.Random, dtype: torch.dtype) -> Case:
    rows, inner, outer = rng.randint(1, 150), rng.choice((1, 33, 64, 256)), rng.choice((1, 48, 130))
    merged, weight = leaf(dtype, rows, inner + 8), leaf(dtype, outer, inner)
    x = merged[:, :inner] if rng.random() < 0.5 else merged[:, 8:]
    bias = leaf(dtype, outer) if rng.random() < 0.5 else None
    return Case((x, weight, bias), (merged, weight) if bias is None else (merged, weight, bias))


def grouped_linear(rng: random.Random, dtype: torch.dtype) -> Case:
    """Loads of every kind: ragged, with empty experts, all rows on one."""
    num_experts, inner, outer = rng.choice((1, 3, 8)), rng.choice((8, 33)), rng.choice((5, 64))
    counts = [rng.choice((0, 0, 1, 2, 7, 40)) for _ in range(num_experts)]
    if rng.random() < 0.3:
        counts = [0] * num_experts
        counts[rng.randrange(num_experts)] = 61
    x, weight = leaf(dtype, sum(counts), inner), leaf(dtype, num_experts, outer, inner)
    bias = leaf(dtype, num_experts, outer) if rng.random() < 0.5 else None
    leaves = (x, weight) if bias is None else (x, weight, bias)
    return Case((x, weight, bias, torch.tensor(counts)), leaves)


def rms_norm(rng: random.Random, dtype: torch.dtype) -> Case:
    width = rng.choice((16, 33, 256, 700))
    weight = leaf(dtype, width)
    if rng.random() < 0.5:
        x = leaf(dtype, rng.randint(1, 150), width)
        return Case((x, weight, 1e-6), (x, weight))
    merged = leaf(dtype, rng.randint(1, 90), 5, width)
    return Case((merged[:, 1:4], weight, 1e-5), (merged, weight))


def swiglu(rng: random.Random, dtype: torch.dtype) -> Case:
    x = leaf(dtype, rng.randint(1, 70), 2 * rng.choice((1, 17, 96, 600)))
    return Case((x,), (x,))


def apply_rotary(rng: random.Random, dtype: torch.dtype) -> Case:
    tokens, width = rng.randint(1, 50), rng.choice((16, 24, 64))
    angles = torch.rand(tokens, rng.choice((width // 2, width // 4))) * 6
    merged = leaf(dtype, tokens, 6, width)
    args = (merged[:, 1:4], angles.cos(), angles.sin(), rng.choice(("half", "interleaved")))
    return Case(args, (merged,))


def packed_attention(rng: random.Random, dtype: torch.dtype) -> Case:
    kinds = (
        (rng.randint(1, 40),) * rng.randint(1, 5),
        tuple(rng.choice((9, 33)) for _ in range(6)),
        tuple(rng.randint(1, 150) for _ in range(4)),
    )
    lengths, width, kv_heads = rng.choice(kinds), rng.choice((16, 32, 80)), rng.choice((1, 2))
    q = leaf(dtype, sum(lengths), 4, width)
    merged = leaf(dtype, sum(lengths), 2 * kv_heads, width)
    k, v = merged[:, :kv_heads], merged[:, kv_heads:]
    rule = ScoreRule(width**-0.5, rng.choice((None, None, 1, 20)))
    if rng.random() < 0.5:
        return Case((q, k, v, lengths, lengths, rule), (q, merged))
    rule, learnt = score_rule(rng, dtype, scale=width**-0.5, num_heads=4)
    key_lengths = tuple(n + rng.choice((0, 3, 17)) for n in lengths)
    k = leaf(dtype, sum(key_lengths), kv_heads, width)
    v = leaf(dtype, sum(key_lengths), kv_heads, width // 2)
    return Case((q, k, v, lengths, key_lengths, rule), (q, k, v, *learnt))


def paged_attention(rng: random.Random, dtype: torch.dtype) -> Case:
    rows, width, kv_heads = rng.randint(1, 6), rng.choice((16, 32, 80)), rng.choice((1, 2))
    contexts = tuple(rng.randint(1, 120) for _ in range(rows))
    decode = rng.random() < 0.5
    queries = tuple(1 if decode else rng.randint(1, context) for context in contexts)
    slots = torch.zeros(rows, max(contexts), dtype=torch.int64)
    free = torch.randperm(1000)
    for row, context in enumerate(contexts):
        slots[row, :context], free = free[:context], free[context:]
    layout = PagedLayout(queries, contexts, slots, decode)
    q = torch.randn(sum(queries), 6, width).to(dtype)[:, 1:5]
    window, num_first = rng.choice((None, 1, 13)), rng.choice((0, 0, 1, 70))
    rule, value_width = ScoreRule(width**-0.5, window, num_first=num_first), width
    if rng.random() < 0.5:
        rule, _ = score_rule(rng, dtype, scale=width**-0.5, num_heads=4)
        rule, value_width = detached(rule), rng.choice((width, 8))
    k, v = (torch.randn(1000, kv_heads, w).to(dtype) for w in (width, value_width))
    return Case((q, k, v, layout, rule))


def score_rule(
    rng: random.Random, dtype: torch.dtype, *, scale: float, num_heads: int
) -> tuple[ScoreRule, tuple[Tensor, ...]]:
    """Return a rule with some of everything, and the tensors in it that are learnt."""
    sinks = leaf(dtype, num_heads) if rng.random() < 0.5 else None
    bias = leaf(dtype, num_heads, 2 * rng.choice((0, 5, 40)) + 1) if rng.random() < 0.5 else None
    rule = ScoreRule(
        scale,
        window=rng.choice((None, 1, 20)),
        causal=rng.random() < 0.5,
        softcap=rng.choice((None, 0.7, 50.0)),
        sinks_N=sinks,
        slopes_N=torch.rand(num_heads).to(dtype) if rng.random() < 0.3 else None,
        bias_NR=bias,
        num_first=rng.choice((0, 0, 3)),
    )
    return rule, tuple(tensor for tensor in (sinks, bias) if tensor is not None)


def detached(rule: ScoreRule) -> ScoreRule:
    """Return the rule of inference: nothing in it asks for gradients."""
    return replace(
        rule,
        sinks_N=None if rule.sinks_N is None else rule.sinks_N.detach(),
        bias_NR=None if rule.bias_NR is None else rule.bias_NR.detach(),
    )


def linear_cross_entropy(rng: random.Random, dtype: torch.dtype) -> Case:
    hidden, weight, targets = _head(rng, dtype)
    targets[torch.rand(len(targets)) < 0.3] = -100
    chunk, softcap = rng.choice((7, 64)), rng.choice((None, 2.0, 30.0))
    return Case((hidden, weight, targets, chunk, -100, softcap), (hidden, weight))


def linear_log_probs(rng: random.Random, dtype: torch.dtype) -> Case:
    hidden, weight, targets = _head(rng, dtype)
    temperature = rng.choice((1.0, 0.6))
    chunk, softcap = rng.choice((7, 64)), rng.choice((None, 2.0, 30.0))
    return Case((hidden, weight, targets, temperature, chunk, softcap), (hidden, weight))


def linear_attention(rng: random.Random, dtype: torch.dtype) -> Case:
    lengths, q, k, v, decay, initial = _sequences(rng, dtype)
    leaves = tuple(x for x in (q, k, v, decay, initial) if x is not None)
    return Case((q, k, v, decay, lengths, initial), leaves)


def delta_rule(rng: random.Random, dtype: torch.dtype) -> Case:
    lengths, q, k, v, decay, initial = _sequences(rng, dtype)
    beta = torch.rand(v.shape[:2]).to(dtype).requires_grad_()
    with torch.no_grad():  # longer keys let the state grow without bound
        k.div_(k.norm(dim=-1, keepdim=True))
    leaves = tuple(x for x in (q, k, v, beta, decay, initial) if x is not None)
    return Case((q, k, v, beta, decay, lengths, initial), leaves)


def wkv(rng: random.Random, dtype: torch.dtype) -> Case:
    lengths, width = _lengths(rng), rng.choice((1, 17))
    tokens, start = sum(lengths), torch.rand(len(lengths), 3, width) + 0.1
    decay = torch.rand(width).to(dtype).requires_grad_()
    bonus, k, v = (leaf(dtype, *shape) for shape in ((width,), (tokens, width), (tokens, width)))
    initial = start.to(dtype) if rng.random() < 0.5 else None
    return Case((decay, bonus, k, v, lengths, initial), (bonus, k, v))


def short_conv(rng: random.Random, dtype: torch.dtype) -> Case:
    lengths, width, taps = _lengths(rng), rng.choice((1, 24)), rng.randint(1, 5)
    x, weight = leaf(dtype, sum(lengths), width), leaf(dtype, width, taps)
    bias = leaf(dtype, width) if rng.random() < 0.5 else None
    initial = leaf(dtype, len(lengths), taps - 1, width) if rng.random() < 0.5 else None
    leaves = tuple(t for t in (x, weight, bias, initial) if t is not None)
    return Case((x, weight, bias, lengths, initial), leaves)


def _lengths(rng: random.Random) -> tuple[int, ...]:
    kinds = (
        (1,) * rng.randint(1, 6),
        (rng.randint(2, 40),) * rng.randint(1, 3),
        (rng.randint(60, 130),),
        tuple(rng.choice((1, 5, 33)) for _ in range(5)),
    )
    return rng.choice(kinds)


def _sequences(rng: random.Random, dtype: torch.dtype) -> tuple[Any, ...]:
    """Return lengths, queries, keys, values, perhaps decays and perhaps first states."""
    lengths, key_width, value_width = _lengths(rng), rng.choice((4, 16)), rng.choice((3, 8))
    groups, tokens = rng.choice((1, 2)), sum(lengths)
    heads = groups * rng.choice((1, 2))
    q, k = (leaf(dtype, tokens, groups, key_width) for _ in range(2))
    v, decay, initial = leaf(dtype, tokens, heads, value_width), None, None
    if (decay_width := rng.choice((0, 1, key_width))) > 0:
        decay = -(torch.randn(tokens, heads, decay_width) * rng.choice((0.5, 2.0))).exp()
        decay = decay.to(dtype).requires_grad_()
    if rng.random() < 0.5:
        initial = leaf(dtype, len(lengths), heads, key_width, value_width)
    return lengths, q, k, v, decay, initial


def _head(rng: random.Random, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    tokens, width, vocab = rng.randint(1, 60), rng.choice((8, 24)), rng.choice((11, 700, 1025))
    hidden, weight = leaf(dtype, tokens, width), leaf(dtype, vocab, width)
    return hidden, weight, torch.randint(0, vocab, (tokens,))


BUILDERS: dict[str, Callable[[random.Random, torch.dtype], Case]] = {
    builder.__name__: builder
    for builder in (
        linear,
        grouped_linear,
        rms_norm,
        swiglu,
        apply_rotary,
        packed_attention,
        paged_attention,
        linear_cross_entropy,
        linear_log_probs,
        linear_attention,
        delta_rule,
        wkv,
        short_conv,
    )
}


def build(name: str, seed: int, dtype: torch.dtype) -> Case:
    """Return the case of a seed: the same arguments on every call."""
    torch.manual_seed(seed)
    return BUILDERS[name](random.Random(seed), dtype)
