"""Decoding over paged latents in splits, as FlashMLA does on a GPU.

B sequences with one new token each, N heads, S positions of one split, C latent width, E latent
with rotated key.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.ops import PagedLayout
from weft.ops.scaled_rows import Rows
from weft.spec import MLASpec

# Positions whose latents and scores are held at once, for each sequence.
SPLIT_SIZE = 1024


def mix_in_splits(q_BNE: Tensor, latents_SE: Rows, layout: PagedLayout, spec: MLASpec) -> Tensor:
    """Return each head's softmax-weighted sum of its sequence's latents, [B, N, C].

    All heads read the same latents, once. Splits are joined by the running maximum and sum of
    their exponentials (Milakov and Gimelshein 2018, arXiv:1805.02867), so memory does not grow
    with the context.

    Args:
        q_BNE: Queries that meet latents (``weft.nn.latent.modes.absorb_queries``).
        latents_SE: The whole cache.
        layout: Of a step in which every sequence computes one token.
        spec: The attention.
    """
    wide = torch.promote_types(q_BNE.dtype, torch.float32)
    visible_BS = layout.visible_BS(None)
    top_BN1 = q_BNE.new_full((*q_BNE.shape[:2], 1), float("-inf"), dtype=wide)
    sum_BN1 = torch.zeros_like(top_BN1)
    mixed_BNC = torch.zeros_like(top_BN1).expand(-1, -1, spec.kv_latent_dim)
    for slots_BS, seen_BS in zip(
        layout.slots_BS.split(SPLIT_SIZE, 1), visible_BS.split(SPLIT_SIZE, 1), strict=True
    ):
        part_BSE = latents_SE[slots_BS].to(q_BNE.dtype)
        scores_BNS = (q_BNE @ part_BSE.transpose(1, 2)).to(wide) * spec.softmax_scale
        scores_BNS = scores_BNS.masked_fill(~seen_BS.unsqueeze(1), float("-inf"))
        # The first split holds a visible position of every sequence, so this is finite.
        new_top_BN1 = torch.maximum(top_BN1, scores_BNS.amax(-1, keepdim=True))
        kept_BN1 = (top_BN1 - new_top_BN1).exp()
        weights_BNS = (scores_BNS - new_top_BN1).exp()
        read_BNC = weights_BNS.to(q_BNE.dtype) @ part_BSE[..., : spec.kv_latent_dim]
        mixed_BNC = mixed_BNC * kept_BN1 + read_BNC
        sum_BN1 = sum_BN1 * kept_BN1 + weights_BNS.sum(-1, keepdim=True)
        top_BN1 = new_top_BN1
    return (mixed_BNC / sum_BN1).to(q_BNE.dtype)
