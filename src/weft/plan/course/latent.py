"""Latent attention by hand: memory of its two modes, and prefill with a prefix cache (InfraTech).

The FLOPs of the modes themselves are in ``weft.plan.mla_mode``. Slips put right by ``strict``: the
absorbed mode multiplies the latent, which all heads share, by the number of heads; the prefill
plot charges the experts for cached tokens; a causal half is taken of pairs with the cache, which
are all kept.
"""

from __future__ import annotations

from typing import NamedTuple

from weft.plan.course.deepseek_mfu import (
    DIM,
    EXPERT_DIM,
    EXPERTS,
    HEADS,
    KV_RANK,
    NOPE,
    QUERY_RANK,
    ROPE,
    SHARED,
    TOP_K,
    VALUE,
)


def expanded_elements(new: int, cached: int) -> int:
    """Return the most numbers held at once when keys and values are expanded.

    >>> expanded_elements(1, 16384)
    671170560
    """
    context = new + cached
    expansion = new * KV_RANK + HEADS * context * (ROPE + NOPE + VALUE)
    attention = HEADS * (new * (NOPE + ROPE) + context * (ROPE + NOPE + VALUE) + new * VALUE)
    return max(expansion, attention)


def absorbed_elements(new: int, cached: int, *, strict: bool) -> int:
    """Return the most numbers held at once when queries attend to the latent.

    >>> absorbed_elements(1, 16384, strict=False), absorbed_elements(1, 16384, strict=True)
    (2281979904, 9577024)
    """
    context = new + cached
    queries, results = HEADS * new * (KV_RANK + ROPE), HEADS * new * KV_RANK
    if strict:
        return queries + context * (KV_RANK + ROPE) + results
    attention = queries + HEADS * context * (KV_RANK + ROPE + KV_RANK) + results
    return max(HEADS * new * (NOPE + KV_RANK + ROPE), HEADS * new * (KV_RANK + VALUE), attention)


class AttentionFlops(NamedTuple):
    """Forward FLOPs of one layer's expanded attention."""

    total: float
    query: int
    kv: int
    attention: float
    output: int


def prefill_attention(new: int, cached: int = 0, *, causal_factor: float = 2.0) -> AttentionFlops:
    """Count expanded attention of new tokens on cached ones, as the course does.

    >>> tuple(prefill_attention(1, 2000))
    (67565035520.0, 97517568, 67150675968, 81960960.0, 234881024)
    """
    context = new + cached
    query = 2 * new * QUERY_RANK * (DIM + HEADS * (NOPE + ROPE))
    kv = 2 * new * DIM * (KV_RANK + ROPE) + 2 * HEADS * context * KV_RANK * (NOPE + VALUE)
    attention = 2 * HEADS * new * context * (NOPE + ROPE + VALUE) / causal_factor
    output = 2 * new * HEADS * VALUE * DIM
    return AttentionFlops(attention + kv + query + output, query, kv, attention, output)


def mixture_flops(new: int) -> int:
    """Count one mixture layer with its router."""
    return 2 * new * (3 * DIM * EXPERT_DIM * (SHARED + TOP_K) + DIM * EXPERTS)


def prefill_gi_flops(length: int, cached: int, *, strict: bool) -> float:
    """Return 2³⁰ FLOPs of one layer's prefill when ``cached`` tokens are found.

    >>> round(prefill_gi_flops(4000, 2000, strict=False), 2)
    4031.49
    >>> round(prefill_gi_flops(4000, 2000, strict=True), 1)
    2548.1
    """
    new = max(length - cached, 1)
    mixture = mixture_flops(new if strict else length)
    return (prefill_attention(new, cached).total + mixture) / 2**30
