"""Small latent attention with random numbers. S positions of one sequence, N heads."""

from __future__ import annotations

import torch
from torch import Tensor

from weft.nn.latent.tokens import IndexTokens, LatentTokens
from weft.ops import PagedLayout
from weft.spec import IndexerSpec, MLASpec

DENSE = MLASpec(num_heads=3, kv_latent_dim=16, nope_head_dim=8, rope_head_dim=4, value_head_dim=6)


def sparse(top_k: int) -> MLASpec:
    return MLASpec(3, 16, 8, 4, 6, query_latent_dim=10, indexer=IndexerSpec(9, 12, top_k))


def random_tokens(num_tokens: int, spec: MLASpec, seed: int = 0) -> LatentTokens:
    """Make what a layer would hand over, all of it normal."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    index = None
    if spec.indexer is not None:
        heads, width = spec.indexer.num_heads, spec.indexer.head_dim
        index = IndexTokens(
            normal(num_tokens, heads, width), normal(num_tokens, width), normal(num_tokens, heads)
        )
    rows = spec.nope_head_dim + spec.value_head_dim
    return LatentTokens(
        normal(num_tokens, spec.num_heads, spec.head_dim),
        normal(num_tokens, spec.kv_latent_dim + spec.rope_head_dim),
        normal(spec.num_heads, rows, spec.kv_latent_dim) / 4,
        index,
    )


def cut(tokens: LatentTokens, places: list[int]) -> LatentTokens:
    """Keep some tokens."""
    index = tokens.index
    if index is not None:
        index = IndexTokens(index.q_TIJ[places], index.key_TJ[places], index.weights_TI[places])
    return LatentTokens(tokens.q_TNH[places], tokens.latent_TE[places], tokens.up_NMC, index)


def paged_step(
    tokens: LatentTokens, work: list[tuple[int, int, int]]
) -> tuple[LatentTokens, dict[str, Tensor], PagedLayout, list[int]]:
    """Lay sequences out as one engine step over a scattered cache.

    Args:
        tokens: Of all sequences in full, end to end.
        work: Start of each sequence in ``tokens``, its cached and its new tokens.

    Returns:
        The new tokens, the cache with everything written, the layout, and the places of the new
        tokens in ``tokens``.
    """
    total = tokens.q_TNH.shape[0]
    order = torch.randperm(2 * total, generator=torch.Generator().manual_seed(1))
    stored = {}
    for name, values in tokens.cached.items():
        stored[name] = torch.full((2 * total, values.shape[1]), 1e3)
        stored[name][order[:total]] = values
    contexts = tuple(cached + new for _, cached, new in work)
    slots_BS = torch.zeros(len(work), max(contexts), dtype=torch.int64)
    for row, (start, _, _) in enumerate(work):
        slots_BS[row, : contexts[row]] = order[start : start + contexts[row]]
    news = tuple(new for _, _, new in work)
    layout = PagedLayout(news, contexts, slots_BS, decode=all(new == 1 for new in news))
    places = [start + cached + step for start, cached, new in work for step in range(new)]
    return cut(tokens, places), stored, layout, places
