"""Which way to compute multi-head latent attention: expand the cache, or absorb the expansion.

The cache holds one latent of width R and one rotated key of width P per token (DeepSeek-V2,
arXiv:2405.04434, section 2.1). *Expanded*: keys (width N + P) and values (width V) of every head
are projected from the latent for all tokens, cached ones too, then attention is that of ordinary
heads. *Absorbed*: the projections move to the queries and to the output of the new tokens, and
every head attends to the latent itself, R + P wide for scores and R wide for values. Absorbing
saves the expansion of the cached tokens and pays with wider products per (query, key) pair: it
is for decoding; long chunks of prompt want the expansion.

Legend: R ``kv_rank``, N ``nope_dim``, P ``rope_dim``, V ``value_dim``, H heads, s new tokens, c
cached tokens. Pairs are counted without a causal mask, as kernels that skip no tile compute them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from weft.core.errors import ConfigError


@dataclass(frozen=True)
class MLAFlops:
    """FLOPs of one layer's attention, a multiply-add counting two.

    Attributes:
        query: Query projections, and the absorbed key expansion.
        kv: Projection to the latent, and its expansion to keys and values.
        attention: Scores and weighted values.
        output: The output projection, and the absorbed value expansion.
    """

    query: int
    kv: int
    attention: int
    output: int

    @property
    def total(self) -> int:
        return self.query + self.kv + self.attention + self.output


@dataclass(frozen=True)
class MLAShape:
    """Widths of one latent-attention layer; the defaults are DeepSeek-V3's.

    Attributes:
        dim: Model width.
        num_heads: Query heads.
        query_rank: Width of the query latent; none means a single query projection.
        kv_rank: Width of the key-value latent.
        nope_dim: Width of a head's keys without positions.
        rope_dim: Width of the rotated key all heads share.
        value_dim: Width of a head's values.
    """

    dim: int = 7168
    num_heads: int = 128
    query_rank: int | None = 1536
    kv_rank: int = 512
    nope_dim: int = 128
    rope_dim: int = 64
    value_dim: int = 128

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", fix=f"{name} must be at least 1")

    @property
    def query_parameters(self) -> int:
        """Weights of the query path."""
        query_dim = self.num_heads * (self.nope_dim + self.rope_dim)
        if self.query_rank is None:
            return self.dim * query_dim
        return self.query_rank * (self.dim + query_dim)


def expanded_flops(shape: MLAShape, num_new_tokens: int, num_cached_tokens: int) -> MLAFlops:
    """Count a layer that expands the latents of all tokens to keys and values.

    >>> round(expanded_flops(MLAShape(), 10, 0).total / 2**30, 6)
    3.492737
    """
    new, context, heads = num_new_tokens, num_new_tokens + num_cached_tokens, shape.num_heads
    return MLAFlops(
        query=2 * new * shape.query_parameters,
        kv=2 * new * shape.dim * (shape.kv_rank + shape.rope_dim)
        + 2 * context * shape.kv_rank * heads * (shape.nope_dim + shape.value_dim),
        attention=2 * heads * new * context * (shape.nope_dim + shape.rope_dim + shape.value_dim),
        output=2 * new * heads * shape.value_dim * shape.dim,
    )


def absorbed_flops(shape: MLAShape, num_new_tokens: int, num_cached_tokens: int) -> MLAFlops:
    """Count a layer whose queries attend to the latents themselves.

    >>> round(absorbed_flops(MLAShape(), 10, 0).total / 2**30, 6)
    3.511047
    """
    new, context, heads = num_new_tokens, num_new_tokens + num_cached_tokens, shape.num_heads
    return MLAFlops(
        query=2 * new * shape.query_parameters + 2 * new * heads * shape.nope_dim * shape.kv_rank,
        kv=2 * new * shape.dim * (shape.kv_rank + shape.rope_dim),
        attention=2 * heads * new * context * (2 * shape.kv_rank + shape.rope_dim),
        output=2 * new * heads * (shape.value_dim * shape.dim + shape.kv_rank * shape.value_dim),
    )


def prefer_absorbed(
    num_new_tokens: int,
    num_cached_tokens: int,
    *,
    kv_rank: int = 512,
    nope_dim: int = 128,
    value_dim: int = 128,
) -> bool:
    """Say whether absorbing takes fewer FLOPs than expanding.

    Per head the difference of the component sums is ``2·(R·(N + V)·c − (2R − N − V)·s·(s + c))``;
    model width, number of heads and rotated width cancel out. An even count is no reason to absorb.

    >>> prefer_absorbed(1, 4096), prefer_absorbed(512, 4096)
    (True, False)
    """
    context = num_new_tokens + num_cached_tokens
    saved = kv_rank * (nope_dim + value_dim) * num_cached_tokens
    return saved > (2 * kv_rank - nope_dim - value_dim) * num_new_tokens * context


def break_even_tokens(
    num_cached_tokens: float,
    *,
    kv_rank: int = 512,
    nope_dim: int = 128,
    value_dim: int = 128,
) -> float:
    """Return the number of new tokens up to which absorbing takes fewer FLOPs.

    Args:
        num_cached_tokens: May be infinite.
        kv_rank: R.
        nope_dim: N.
        value_dim: V.

    >>> round(break_even_tokens(math.inf), 2)
    170.67
    """
    wider = 2 * kv_rank - nope_dim - value_dim
    if wider <= 0:
        return math.inf
    limit = kv_rank * (nope_dim + value_dim) / wider
    if math.isinf(num_cached_tokens):
        return limit
    half = num_cached_tokens / 2
    root = math.sqrt(half * half + limit * num_cached_tokens)
    return limit * num_cached_tokens / (root + half) if root else 0.0
