"""Latent attention over the paged cache (engine): each sequence in the cheaper mode.

T tokens, B sequences, S cached positions, N heads, H query-key head width, V value head width,
C latent width, E width of the latent with the rotated key.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from weft.nn.latent.decode import mix_in_splits
from weft.nn.latent.modes import absorb_queries, absorb_values, attend_absorbed, attend_expanded
from weft.nn.latent.selection import select
from weft.nn.latent.tokens import IndexTokens, LatentTokens
from weft.ops import PagedLayout
from weft.ops.scaled_rows import Rows
from weft.plan.mla_mode import prefer_absorbed
from weft.spec import MLASpec


def attend_paged(
    tokens: LatentTokens, stored: Mapping[str, Rows], layout: PagedLayout, spec: MLASpec
) -> Tensor:
    """Attend from each sequence's new tokens to its cached latents, [T, N, V].

    The step's own latents must already be in ``stored``, the layer's tensors by their names in
    ``MLASpec.token_cache``. Single tokens that attend to everything share one call; where tokens
    are to be computed apart, each takes the mode of a single token.
    """
    if layout.apart:
        pieces = [
            _attend_sequence(tokens, slice(place, place + 1), stored, alone, 0, spec)
            for place, alone in enumerate(layout.single_tokens)
        ]
        return torch.cat(pieces)
    together = [row for row in range(len(layout.query_lengths)) if _is_decode(row, layout, spec)]
    if len(together) == len(layout.query_lengths):
        return _attend_decodes(tokens.q_TNH, tokens.up_NMC, stored["latent"], layout, spec)
    shape = (tokens.q_TNH.shape[0], spec.num_heads, spec.value_head_dim)
    out_TNV = tokens.q_TNH.new_empty(shape)
    starts = [0]
    for length in layout.query_lengths:
        starts.append(starts[-1] + length)
    if together:
        places_B = torch.tensor([starts[row] for row in together], device=out_TNV.device)
        out_TNV[places_B] = _attend_decodes(
            tokens.q_TNH[places_B], tokens.up_NMC, stored["latent"], _pick(layout, together), spec
        )
    for row in sorted(set(range(len(layout.query_lengths))) - set(together)):
        span = slice(starts[row], starts[row + 1])
        out_TNV[span] = _attend_sequence(tokens, span, stored, layout, row, spec)
    return out_TNV


def _absorbs(num_queries: int, num_keys: int, spec: MLASpec) -> bool:
    return prefer_absorbed(
        num_queries,
        num_keys - num_queries,
        kv_rank=spec.kv_latent_dim,
        nope_dim=spec.nope_head_dim,
        value_dim=spec.value_head_dim,
    )


def _is_decode(row: int, layout: PagedLayout, spec: MLASpec) -> bool:
    """Say whether a sequence's one new token attends to all its positions, absorbed."""
    num_keys = layout.context_lengths[row]
    if spec.indexer is not None and num_keys > spec.indexer.top_k:
        return False
    return layout.query_lengths[row] == 1 and _absorbs(1, num_keys, spec)


def _pick(layout: PagedLayout, rows: list[int]) -> PagedLayout:
    """Return the layout of some sequences that compute one token each."""
    contexts = tuple(layout.context_lengths[row] for row in rows)
    slots_BS = layout.slots_BS[rows][:, : max(contexts)]
    return PagedLayout((1,) * len(rows), contexts, slots_BS, decode=True)


def _attend_decodes(
    q_BNH: Tensor, up_NMC: Tensor, latents_SE: Rows, layout: PagedLayout, spec: MLASpec
) -> Tensor:
    """Attend absorbed from one token per sequence, [B, N, V]."""
    q_BNE = absorb_queries(q_BNH, up_NMC, spec)
    return absorb_values(mix_in_splits(q_BNE, latents_SE, layout, spec), up_NMC, spec)


def _attend_sequence(
    tokens: LatentTokens,
    span: slice,
    stored: Mapping[str, Rows],
    layout: PagedLayout,
    row: int,
    spec: MLASpec,
) -> Tensor:
    """Attend from one sequence's new tokens in its own mode."""
    q_TNH, slots_S, mask_TS = tokens.q_TNH[span], layout.slots_BS[row], None
    slots_S = slots_S[: layout.context_lengths[row]]
    if spec.indexer is not None and len(slots_S) > spec.indexer.top_k:
        assert tokens.index is not None
        index = IndexTokens(
            tokens.index.q_TIJ[span], tokens.index.key_TJ[span], tokens.index.weights_TI[span]
        )
        mask_TS = select(index, stored["index_keys"][slots_S], spec.indexer.top_k)
        if len(q_TNH) == 1:  # only what is kept is read from the cache
            slots_S, mask_TS = slots_S[mask_TS[0]], None
    latent_SE = stored["latent"][slots_S].to(q_TNH.dtype)
    attend = attend_absorbed if _absorbs(len(q_TNH), len(slots_S), spec) else attend_expanded
    return attend(q_TNH, latent_SE, tokens.up_NMC, spec, mask_TS)
