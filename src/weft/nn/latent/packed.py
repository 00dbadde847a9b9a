"""Latent attention inside documents laid end to end (training): always expanded.

T tokens, N heads, V value head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.nn.latent.modes import attend_expanded, expand
from weft.nn.latent.selection import select
from weft.nn.latent.tokens import IndexTokens, LatentTokens
from weft.ops import ScoreRule, packed_attention
from weft.spec import MLASpec


def attend_packed(tokens: LatentTokens, lengths: tuple[int, ...], spec: MLASpec) -> Tensor:
    """Attend causally within each document, [T, N, V]."""
    indexer = spec.indexer
    if indexer is None or max(lengths, default=0) <= indexer.top_k:
        k_TNH, v_TNV = expand(tokens.latent_TE, tokens.up_NMC, spec)
        return packed_attention(tokens.q_TNH, k_TNH, v_TNV, lengths, ScoreRule(spec.softmax_scale))
    index = tokens.index
    assert index is not None
    columns = (index.q_TIJ, index.key_TJ, index.weights_TI, tokens.q_TNH, tokens.latent_TE)
    outputs = []
    for q_TIJ, key_TJ, weights_TI, q_TNH, latent_TE in zip(
        *(column.split(lengths) for column in columns), strict=True
    ):
        mask_TS = select(IndexTokens(q_TIJ, key_TJ, weights_TI), key_TJ, indexer.top_k)
        outputs.append(attend_expanded(q_TNH, latent_TE, tokens.up_NMC, spec, mask_TS))
    return torch.cat(outputs)
