"""Random arguments for every op: ragged sizes, strided views, both layouts, windows."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weft.ops import PagedLayout


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
    tokens = sum(lengths)
    q = leaf(dtype, tokens, 4, width)
    merged = leaf(dtype, tokens, 2 * kv_heads, width)
    k, v = merged[:, :kv_heads], merged[:, kv_heads:]
    window = rng.choice((None, None, 1, 20))
    return Case((q, k, v, lengths, width**-0.5, window), (q, merged))


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
    cache = [torch.randn(1000, kv_heads, width).to(dtype) for _ in range(2)]
    return Case((q, *cache, layout, width**-0.5, rng.choice((None, 1, 13))))


def linear_cross_entropy(rng: random.Random, dtype: torch.dtype) -> Case:
    hidden, weight, targets = _head(rng, dtype)
    targets[torch.rand(len(targets)) < 0.3] = -100
    return Case((hidden, weight, targets, rng.choice((7, 64)), -100), (hidden, weight))


def linear_log_probs(rng: random.Random, dtype: torch.dtype) -> Case:
    hidden, weight, targets = _head(rng, dtype)
    temperature = rng.choice((1.0, 0.6))
    return Case((hidden, weight, targets, temperature, rng.choice((7, 64))), (hidden, weight))


def _head(rng: random.Random, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    tokens, width, vocab = rng.randint(1, 60), rng.choice((8, 24)), rng.choice((11, 700, 1025))
    hidden, weight = leaf(dtype, tokens, width), leaf(dtype, vocab, width)
    return hidden, weight, torch.randint(0, vocab, (tokens,))


BUILDERS: dict[str, Callable[[random.Random, torch.dtype], Case]] = {
    builder.__name__: builder
    for builder in (
        linear,
        rms_norm,
        swiglu,
        apply_rotary,
        packed_attention,
        paged_attention,
        linear_cross_entropy,
        linear_log_probs,
    )
}


def build(name: str, seed: int, dtype: torch.dtype) -> Case:
    """Return the case of a seed: the same arguments on every call."""
    torch.manual_seed(seed)
    return BUILDERS[name](random.Random(seed), dtype)
