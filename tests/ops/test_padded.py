"""Padded attention over many short documents, of every shape it accepts."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from tests.ops.cases import leaf, score_rule
from weft.ops import ScoreRule
from weft.ops.attention import padded, reference

SEEDS = range(20)


def arguments(seed: int, dtype: torch.dtype):
    """Documents of 1 to 20 tokens; with odd seeds they attend to others, whatever the distance."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    lengths = tuple(rng.randint(1, 20) for _ in range(12))
    rule, learnt = score_rule(rng, dtype, scale=0.3, num_heads=4)
    key_lengths = lengths
    if seed % 2:
        rule = replace(rule, causal=False, window=None, slopes_N=None, bias_NR=None)
        learnt = tuple(tensor for tensor in (rule.sinks_N,) if tensor is not None)
        key_lengths = tuple(rng.randint(1, 20) for _ in lengths)
    q = leaf(dtype, sum(lengths), 4, 16)
    k, v = leaf(dtype, sum(key_lengths), 2, 16), leaf(dtype, sum(key_lengths), 2, 8)
    return (q, k, v, lengths, key_lengths, rule), (q, k, v, *learnt)


@pytest.mark.parametrize("seed", SEEDS)
def test_values_and_gradients_equal_the_reference(seed: int):
    args, leaves = arguments(seed, torch.float64)
    assert padded.accepts(*args)
    results = []
    for function in (reference.packed_attention, padded.packed_attention):
        out = function(*args)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        results.append((out, *torch.autograd.grad((out * weights).sum(), leaves)))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


def test_padding_is_refused_where_it_is_wrong_or_dear():
    q = torch.zeros(0)
    plain, anywhere = ScoreRule(1.0), ScoreRule(1.0, causal=False)
    assert padded.accepts(q, q, q, (1, 2, 3, 4), (4, 3, 2, 1), anywhere)
    assert not padded.accepts(q, q, q, (1, 2, 3, 4), (4, 3, 2, 1), plain), "distances matter"
    assert not padded.accepts(q, q, q, (5,) * 40, (5,) * 40, anywhere), "one call does"
    assert not padded.accepts(q, q, q, (900, 1, 2, 3), (900, 1, 2, 3), plain), "mostly padding"
    assert not padded.accepts(q, q, q, (0, 1, 2, 3), (1, 1, 1, 1), anywhere), "an empty document"
